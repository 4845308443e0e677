// SPDX-License-Identifier: GPL-2.0-or-later

//! The report for people.

use std::fmt::Write as _;

use tesserafs_image::text::size;

use super::report::{DamageReport, DonorReport, LostBlock, LostDead, LostFile, LostReport, RepairReport};

/// Lines about what was not found, at most; a machine gets all.
const LINES: usize = 20;

impl DamageReport {
    fn to_text(&self) -> String {
        let mut parts = Vec::new();
        for (is_damaged, what) in [
            (self.first_block, "the first block"),
            (self.signature, "the signature"),
            (self.padding, "the zeros behind pack 0"),
            (self.dead_bytes, "bytes of pack 0 that no file has"),
            (self.length, "the length"),
        ] {
            if is_damaged {
                parts.push(what.to_owned());
            }
        }
        if self.blocks > 0 {
            parts.push(counted(self.blocks, "block of metadata", "blocks of metadata"));
        }
        if self.chunks > 0 {
            parts.push(counted(self.chunks, "chunk", "chunks"));
        }
        for pack in &self.packs {
            let what = if pack.missing { "which is not there" } else { "which has other bytes" };
            parts.push(format!("pack {}, {what}", pack.digest));
        }
        parts.join("; ")
    }
}

impl DonorReport {
    fn to_text(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.first_blocks > 0 {
            parts.push("the first block or the signature".to_owned());
        }
        if self.blocks > 0 {
            parts.push(counted(self.blocks, "block of metadata", "blocks of metadata"));
        }
        if self.chunks > 0 {
            parts.push(counted(self.chunks, "chunk", "chunks"));
        }
        if self.encoded_chunks > 0 {
            let chunks = counted(self.encoded_chunks, "chunk", "chunks");
            parts.push(format!("{chunks} that had to be compressed again"));
        }
        if self.dead_bytes > 0 {
            parts.push(format!("{} of packs that this image does not use", size(self.dead_bytes)));
        }
        (!parts.is_empty()).then(|| format!("from {}: {}", self.path, parts.join(", ")))
    }
}

impl LostReport {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.signature {
            lines.push("not found: the signature".to_owned());
        }
        for block in &self.blocks {
            let LostBlock { block, offset, tables } = block;
            lines.push(format!(
                "not found: block {block} of the metadata, at byte {offset} ({})",
                tables.join(", ")
            ));
        }
        for LostFile { path, offset, bytes, chunks } in &self.files {
            let end = offset + bytes;
            let numbers: Vec<String> = chunks.iter().take(3).map(u32::to_string).collect();
            let more = if chunks.len() > numbers.len() { ", ..." } else { "" };
            let s = if chunks.len() == 1 { "" } else { "s" };
            lines.push(format!(
                "not found: {path}: bytes {offset} to {end} (chunk{s} {}{more})",
                numbers.join(", ")
            ));
        }
        for LostDead { pack, bytes } in &self.dead {
            lines.push(format!(
                "not found: {} of pack {pack} that this image does not use; its chunks in it are there, but a pack has its name by the \
                 digest of all its bytes: another copy of it, or the images that use them, have these",
                size(*bytes)
            ));
        }
        lines
    }
}

impl RepairReport {
    /// Why the image is not whole, in a sentence; nothing if it is, or would be.
    pub fn failure(&self) -> Option<String> {
        if self.lost.is_nothing() {
            return None;
        }
        let lost = &self.lost;
        let mut parts = Vec::new();
        if lost.signature {
            parts.push("the signature (--drop-signature makes the image without it)".to_owned());
        }
        if !lost.blocks.is_empty() {
            parts.push(counted(lost.blocks.len() as u64, "block of metadata", "blocks of metadata"));
        }
        if lost.chunks > 0 {
            parts.push(counted(lost.chunks, "chunk", "chunks"));
        }
        if !lost.dead.is_empty() {
            let packs = counted(lost.dead.len() as u64, "pack", "packs");
            parts.push(format!("bytes of {packs} that this image does not use"));
        }
        let mut text = format!(
            "{}: not repaired, and nothing was changed: no file has {}",
            self.image,
            parts.join(", ")
        );
        if lost.otherwise_compressed > 0 {
            let chunks = counted(lost.otherwise_compressed, "chunk", "chunks");
            let why = lost.why.as_deref().unwrap_or("they were compressed by another builder");
            let _ =
                write!(text, "; of {chunks} the raw bytes are there, but compressed they are others: {why}");
        }
        if lost.is_root_lost {
            text.push_str(
                "; if the metadata is not damaged, its first 512 bytes are, or are those of another image: name the right one by --id",
            );
        }
        Some(text)
    }

    /// As a few lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let image = &self.image;
        if !self.damaged {
            let _ = writeln!(text, "{image}: nothing is damaged, nothing was changed");
            return text;
        }
        let _ = writeln!(text, "{image}: damaged: {}", self.damage.to_text());
        let _ = writeln!(text, "image ID  {}", self.image_id);
        for donor in &self.from {
            if let Some(line) = donor.to_text() {
                let _ = writeln!(text, "{line}");
            }
            for note in &donor.notes {
                let _ = writeln!(text, "{}: {note}", donor.path);
            }
        }
        let lines = self.lost.lines();
        for line in lines.iter().take(LINES) {
            let _ = writeln!(text, "{line}");
        }
        if lines.len() > LINES {
            let _ = writeln!(text, "not found: {} more like these", lines.len() - LINES);
        }
        if self.signature_dropped {
            let _ = writeln!(text, "not signed: no file has the signature; sign the image again");
        }
        if self.lost.is_nothing() {
            let file = self.output.as_ref().unwrap_or(image);
            let what = match self.repaired {
                true => "is whole",
                false => "would be whole; nothing was changed",
            };
            let _ = writeln!(text, "{file}: {what}, in {:.1} s", self.seconds);
        }
        text
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
