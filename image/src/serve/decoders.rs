// SPDX-License-Identifier: GPL-2.0-or-later

//! The memory to decode with, shared by threads that come and go.

use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use crate::packs::Decoder;

/// Decoders that wait for a thread to need one.
#[derive(Debug, Default)]
pub struct Decoders {
    idle: Mutex<Vec<Decoder>>,
}

impl Decoders {
    /// Hands `work` a decoder: one that is idle, or a new one. There are never more than threads that decoded at once.
    pub fn with<T, E: From<Error>>(&self, work: impl FnOnce(&mut Decoder) -> Result<T, E>) -> Result<T, E> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut decoder = match idle {
            Some(decoder) => decoder,
            None => Decoder::new()?,
        };
        let result = work(&mut decoder);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
        result
    }
}
