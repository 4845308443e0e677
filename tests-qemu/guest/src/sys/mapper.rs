// SPDX-License-Identifier: GPL-2.0
//! The device mapper: devices of one target.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::checked;

/// `struct dm_ioctl` with room for one target.
#[repr(C)]
struct MapperCall {
    version: [u32; 3],
    /// Length of all, and where the targets begin.
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    rest: [u8; 7],
    target: MapperTarget,
}

/// `struct dm_target_spec` with its parameters, which end in NUL.
#[repr(C)]
#[derive(Clone, Copy)]
struct MapperTarget {
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; 16],
    parameters: [u8; 512],
}

const _: () = assert!(std::mem::offset_of!(MapperCall, target) == 312);
const _: () = assert!(std::mem::offset_of!(MapperTarget, parameters) == 40);

/// Copies a text to the beginning of a field, which is to end in NUL.
fn put(field: &mut [u8], text: &str) -> io::Result<()> {
    if text.len() >= field.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    field[..text.len()].copy_from_slice(text.as_bytes());
    Ok(())
}

impl MapperCall {
    /// A request about the device of this name.
    fn new(name: &str) -> io::Result<Self> {
        let mut call = Self {
            version: [4, 0, 0],
            data_size: size_of::<Self>() as u32,
            data_start: std::mem::offset_of!(Self, target) as u32,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name: [0; 128],
            uuid: [0; 129],
            rest: [0; 7],
            target: MapperTarget {
                sector_start: 0,
                length: 0,
                status: 0,
                next: 0,
                target_type: [0; 16],
                parameters: [0; 512],
            },
        };
        put(&mut call.name, name)?;
        Ok(call)
    }

    /// Asks for it; returns the number of the device.
    fn send(mut self, request: libc::Ioctl) -> io::Result<u64> {
        let control = File::open("/dev/mapper/control")?;
        // SAFETY: The call has the layout of `struct dm_ioctl`, and is as long as it says; the kernel reads and writes
        // no more than that, and keeps nothing of it.
        checked(unsafe { libc::ioctl(control.as_raw_fd(), request, std::ptr::from_mut(&mut self)) }.into())?;
        Ok(self.dev)
    }
}

const DM_DEV_CREATE: libc::Ioctl = 0xc138_fd03_u32 as libc::Ioctl;
const DM_DEV_REMOVE: libc::Ioctl = 0xc138_fd04_u32 as libc::Ioctl;
/// It resumes, too.
const DM_DEV_SUSPEND: libc::Ioctl = 0xc138_fd06_u32 as libc::Ioctl;
const DM_TABLE_LOAD: libc::Ioctl = 0xc138_fd09_u32 as libc::Ioctl;

/// A device of the device mapper, with one target; it stays until it is [removed](remove). Returns the number in
/// the name of its node.
fn create(name: &str, sectors: u64, kind: &str, parameters: &str, flags: u32) -> io::Result<u32> {
    MapperCall::new(name)?.send(DM_DEV_CREATE)?;
    let mut call = MapperCall::new(name)?;
    (call.target_count, call.flags, call.target.length) = (1, flags, sectors);
    put(&mut call.target.target_type, kind)?;
    put(&mut call.target.parameters, parameters)?;
    call.send(DM_TABLE_LOAD)?;
    // A device that is not suspended but resumed.
    let device = MapperCall::new(name)?.send(DM_DEV_SUSPEND)?;
    Ok(rustix::fs::minor(device))
}

/// Makes a device of dm-verity with this name; it stays. Returns the number in the name of its node.
pub(crate) fn verity(name: &str, sectors: u64, parameters: &str) -> io::Result<u32> {
    const READ_ONLY: u32 = 1;
    create(name, sectors, "verity", parameters, READ_ONLY)
}

/// Makes a device with this name that is another one; it stays until it is [removed](remove).
pub(crate) fn linear(name: &str, sectors: u64, device: &Path) -> io::Result<PathBuf> {
    let number = create(name, sectors, "linear", &format!("{} 0", device.display()), 0)?;
    Ok(PathBuf::from(format!("/dev/dm-{number}")))
}

/// Lets a device of the device mapper answer nothing, or answer again. Its filesystem is not told.
pub(crate) fn suspend(name: &str, suspended: bool) -> io::Result<()> {
    const SUSPEND: u32 = 1 << 1;
    const SKIP_LOCKFS: u32 = 1 << 10;
    let mut call = MapperCall::new(name)?;
    call.flags = if suspended { SUSPEND | SKIP_LOCKFS } else { 0 };
    call.send(DM_DEV_SUSPEND).map(|_| ())
}

/// Removes a device of the device mapper that nobody uses.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    MapperCall::new(name)?.send(DM_DEV_REMOVE).map(|_| ())
}
