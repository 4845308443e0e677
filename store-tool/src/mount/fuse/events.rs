// SPDX-License-Identifier: GPL-2.0-or-later

//! The mounter waits for signals and for its daemon.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::daemon::READY;

/// The events of the daemon, as bytes; any other byte is a signal.
const IS_READY: u8 = b'r';
const HAS_ENDED: u8 = b'e';

/// Time in which fusermount3 ends after its daemon was killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a daemon has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// The image is mounted, and served.
    Ready,
    /// The daemon has ended, or does so now.
    Ended,
    /// A signal came first. The daemon is killed.
    Interrupted,
}

/// Events in the order in which they come.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) events: UnixStream,
    pub(super) sender: UnixStream,
}

impl Events {
    /// Turns the signals that end a process into events.
    pub(super) fn watch() -> io::Result<Self> {
        let (events, sender) = UnixStream::pair()?;
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { events, sender })
    }

    /// Waits until the daemon has mounted the image. It may never say so, as a directory may be on a server that is away.
    pub(super) fn wait_for(&mut self, daemon: &mut Child) -> io::Result<Begun> {
        let Some(mut out) = daemon.stdout.take() else { return Ok(Begun::Ended) };
        let mut sender = self.sender.try_clone()?;
        let listener = thread::spawn(move || {
            let mut said = [0; READY.len()];
            let is_ready = out.read_exact(&mut said).is_ok() && said == READY;
            sender.write_all(&[if is_ready { IS_READY } else { HAS_ENDED }])
        });
        let mut event = [0];
        self.events.read_exact(&mut event)?;
        match event {
            [IS_READY] => Ok(Begun::Ready),
            [HAS_ENDED] => Ok(Begun::Ended),
            _ => {
                daemon.kill()?;
                drop(listener);
                // fusermount3 has the other end, too, and may mount before it ends. One more signal ends the wait.
                self.events.set_read_timeout(Some(PATIENCE))?;
                let _ = self.events.read(&mut event);
                Ok(Begun::Interrupted)
            }
        }
    }
}
