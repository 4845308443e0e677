// SPDX-License-Identifier: GPL-2.0-or-later

//! Bytes of an image on standard output: annotations and files.

use std::io::{self, Write};

use tesserafs_format::limits::ANNOTATION_KEY_MAX;
use tesserafs_format::FileKind;
use tesserafs_image::context::read;
use tesserafs_image::lookup::{self, Last};
use tesserafs_image::packs::{DataError, Decoder};
use tesserafs_image::{text, Contents, Context, Error, Piece};

/// The error of an output that cannot be written.
pub(crate) fn cannot_write(source: io::Error) -> Error {
    Error::Io { what: "cannot write the output".to_owned(), source }
}

/// Writes the bytes of the regular file at `path`, through symlinks of the image. Where the image is broken there, it is a
/// finding, and the output is not the file.
pub(crate) fn cat(context: &Context<'_>, path: &[u8], out: &mut dyn Write) -> Result<(), Error> {
    let found = lookup::find(context, path, Last::Follow)?;
    let FileKind::Regular { size, .. } = found.inode.kind else {
        return Err(Error::Refused(format!("{}: is not a regular file", text::escape(path))));
    };
    let _step = context.step(size, || format!("reading {}", text::escape(path)));
    let contents = Contents::open(context)?;
    let written = contents.read(&found.inode, &mut Decoder::new()?, |piece| {
        match piece {
            Piece::Data(bytes) => out.write_all(bytes),
            Piece::Hole(len) => io::copy(&mut io::Read::take(io::repeat(0), len), out).map(drop),
        }
        .map_err(cannot_write)
    });
    note(context, written)
}

/// Makes a finding of what is broken.
pub(crate) fn note(context: &Context<'_>, result: Result<(), DataError>) -> Result<(), Error> {
    match result {
        Ok(()) => Ok(()),
        Err(DataError::Broken(finding)) => {
            context.findings.add(*finding);
            Ok(())
        }
        Err(DataError::Stop(error)) => Err(error),
    }
}

/// The text with every character that a terminal might obey replaced, but for the end of a line.
pub(crate) fn for_terminal(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    text.chars()
        .map(|c| if text::is_printable(c) || c == '\n' { c } else { '?' })
        .collect::<String>()
        .into_bytes()
}

/// Writes the bytes of the annotation of that key.
pub(crate) fn annotation(
    context: &Context<'_>,
    key: &[u8],
    is_terminal: bool,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let count = context.image.sb.layout.annotations.records();
    for number in 0..count {
        let index = u32::try_from(number).unwrap_or(u32::MAX);
        let annotation = read(context.image.annotation(index))?;
        let mut buf = [0; ANNOTATION_KEY_MAX as usize];
        let found = &mut buf[..annotation.key_len as usize];
        read(context.image.annotation_bytes(index, annotation.key_offset, found))?;
        if *found != *key {
            continue;
        }
        let mut piece = vec![0; 1 << 16];
        let mut at = annotation.value_offset();
        let end = at + u64::from(annotation.value_len);
        while at < end {
            context.cancel.check()?;
            let len = (end - at).min(piece.len() as u64) as usize;
            let piece = &mut piece[..len];
            read(context.image.annotation_bytes(index, at, piece))?;
            let len = if is_terminal {
                let whole = whole_characters(piece, at + len as u64 == end);
                out.write_all(&for_terminal(whole)).map_err(cannot_write)?;
                whole.len()
            } else {
                out.write_all(piece).map_err(cannot_write)?;
                len
            };
            at += len as u64;
        }
        return Ok(());
    }
    Err(Error::Refused(format!("the image has no annotation {}", text::escape(key))))
}

/// The piece without the beginning of a character whose other bytes come with the next piece.
fn whole_characters(piece: &[u8], is_last: bool) -> &[u8] {
    let rest = piece.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
    if is_last || rest == piece.len() {
        piece
    } else {
        &piece[..piece.len() - rest]
    }
}
