// SPDX-License-Identifier: GPL-2.0
//! Builds `tesserafs.ko` out of the tree, with zero warnings, without a path to a panic, and with small stack frames.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::cache::{key, log_of, Cache};
use crate::kernel::Compilers;
use crate::{build_folder, run, tools};

/// How the module is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lint {
    /// As it is used.
    Plain,
    /// With the kernel's clippy lints (`CLIPPY=1`).
    Clippy,
}

/// Builds the module against the kernel build folder `build`; returns the `.ko`.
///
/// All output goes to a folder of the cache (`MO=`), so that the repository stays clean. A build with
/// a warning fails and is forgotten: an incremental build would not repeat the warning.
pub(crate) fn build(cache: &Cache, compilers: &dyn Compilers, build: &Path, lint: Lint) -> Result<PathBuf> {
    build_from(&tools::repository(), cache, compilers, build, lint)
}

/// The same, from the source in `repository`.
pub(crate) fn build_from(
    repository: &Path,
    cache: &Cache,
    compilers: &dyn Compilers,
    build: &Path,
    lint: Lint,
) -> Result<PathBuf> {
    build_folder::check(build)?;
    let kind = match lint {
        Lint::Plain => "module",
        Lint::Clippy => "module-clippy",
    };
    let name = format!(
        "{kind}/{}",
        key(&[build.as_os_str().as_encoded_bytes(), repository.as_os_str().as_encoded_bytes()])
    );
    let _lock = cache.lock(&name)?;
    let output = cache.folder(&name)?;
    let log = log_of(&output);
    run::say(format_args!("building tesserafs.ko, with the log in {}", log.display()));
    let mut make = compilers.make(build);
    make.arg(format!("M={}", repository.display())).arg(format!("MO={}", output.display()));
    if lint == Lint::Clippy {
        make.arg("CLIPPY=1");
    }
    make.arg("modules");
    let result = run::logged(&mut make, &log);
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let warnings = warnings(&text);
    if result.is_ok() && warnings.is_empty() {
        let module = output.join("tesserafs.ko");
        if !module.is_file() {
            bail!("the build made no {}", module.display());
        }
        return Ok(module);
    }
    std::fs::remove_dir_all(&output).with_context(|| format!("failed to remove {}", output.display()))?;
    result?;
    bail!("{} warnings; see {}:\n{}", warnings.len(), log.display(), warnings.join("\n"))
}

/// Lines of a build log that warn, as rustc, clang, modpost, objtool and make word it.
fn warnings(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| {
            let lower = line.to_ascii_lowercase();
            lower.starts_with("warning:") || lower.starts_with("warning[") || lower.contains(": warning:")
        })
        .collect()
}

/// Fails if the module could panic: no symbol of `core::panicking` may be referenced.
pub(crate) fn check_panic_free(compilers: &dyn Compilers, module: &Path) -> Result<()> {
    let symbols = run::capture(compilers.nm().args(["-u", "-C", "-j"]).arg(module))?;
    let panics: Vec<&str> = symbols
        .lines()
        .filter(|symbol| symbol.contains("panicking") || symbol.contains("rust_begin_unwind"))
        .collect();
    if !panics.is_empty() {
        bail!("{} can panic: it references {}", module.display(), panics.join(", "));
    }
    if !symbols.lines().any(|symbol| symbol.contains("register_filesystem")) {
        bail!("{} does not look like a file system: the check would prove nothing", module.display());
    }
    Ok(())
}

/// Most bytes of stack that a function may take: a page fault deep in another file system's call chain reads
/// through this module, and each image below an image once more.
const FRAME_MAX: usize = 1024;

/// The same for functions that only a mount runs, or the loading of the module: they begin near the system call.
const FRAME_MAX_OF_MOUNT: usize = 2048;

/// Parts of the names of those.
const OF_MOUNT: [&str; 5] = [
    "FileSystem>::fill_super",
    "FileSystem>::open_image",
    "main::head::",
    "main::vfs::context::",
    "tesserafs_format::superblock::",
];

/// Fails if a function of the module takes more stack than it may; names each that does.
///
/// The numbers are those of the machine code: what the compiler reserves, not what the source says.
pub(crate) fn check_frames(compilers: &dyn Compilers, module: &Path) -> Result<String> {
    let code = run::capture(compilers.objdump().args(["-d", "-C", "--no-show-raw-insn"]).arg(module))?;
    let mut frames = frames(&code)?;
    frames.sort_by(|a, b| b.cmp(a));
    let (largest, name) = frames.first().context("no function has a frame: the check would prove nothing")?;
    let too_large: Vec<String> = frames
        .iter()
        .filter_map(|(bytes, name)| {
            let is_of_mount = OF_MOUNT.iter().any(|part| name.contains(part));
            let limit = if is_of_mount { FRAME_MAX_OF_MOUNT } else { FRAME_MAX };
            (*bytes > limit).then(|| format!("{bytes} bytes, {limit} at most: {name}"))
        })
        .collect();
    if !too_large.is_empty() {
        bail!("{} functions take too much stack:\n{}", too_large.len(), too_large.join("\n"));
    }
    Ok(format!("{largest} bytes at most, in {name}"))
}

/// Bytes of stack that each function of a disassembly takes, and its name: the registers that it saves, and the
/// largest step of the stack pointer.
///
/// Fails for a step whose length only the running code knows.
fn frames(code: &str) -> Result<Vec<(usize, &str)>> {
    let mut frames: Vec<(usize, usize, &str)> = Vec::new();
    for line in code.lines() {
        if let Some(name) = line.split_once(" <").and_then(|(_, name)| name.strip_suffix(">:")) {
            frames.push((0, 0, name));
            continue;
        }
        let (Some((saved, step, name)), Some((_, instruction))) = (frames.last_mut(), line.split_once(':'))
        else {
            continue;
        };
        let mut words = instruction.split([' ', '\t', ',']).filter(|word| !word.is_empty());
        let (operation, from, to) = (words.next(), words.next(), words.next());
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        match (operation, from, to) {
            (Some("push" | "pushq"), Some(_), None) => *saved += 8,
            (Some("sub" | "subq"), Some(from), Some("%rsp")) => {
                let bytes = from.strip_prefix("$0x").and_then(number);
                *step = bytes.with_context(|| format!("{name}: `{}`", instruction.trim()))?.max(*step);
            }
            // One byte shorter than its counterpart, for 128 bytes; LLVM and GNU write the number differently.
            (Some("add" | "addq"), Some("$-0x80" | "$0xffffffffffffff80"), Some("%rsp")) => {
                *step = 0x80.max(*step);
            }
            _ => {}
        }
    }
    Ok(frames.into_iter().map(|(saved, step, name)| (saved + step, name)).collect())
}

/// Fails if the module names a folder of the machine that it was built on, but for what only a debugger reads and packages
/// leave out: the same source would give other bytes elsewhere.
pub(crate) fn check_paths(compilers: &dyn Compilers, module: &Path, folders: &[&Path]) -> Result<String> {
    let dump = run::capture(compilers.objdump().arg("-s").arg(module))?;
    let bytes = contents(&dump);
    if memchr::memmem::find(&bytes, b"tesserafs").is_none() {
        bail!("{} does not name its file system: the check would prove nothing", module.display());
    }
    for folder in folders {
        if let Some(place) = memchr::memmem::find(&bytes, folder.as_os_str().as_encoded_bytes()) {
            let end =
                bytes[place..].iter().position(|&byte| byte == 0).map_or(bytes.len(), |end| place + end);
            bail!("{} names {}", module.display(), String::from_utf8_lossy(&bytes[place..end]));
        }
    }
    Ok(format!("{} bytes", bytes.len()))
}

/// The bytes of all sections in a dump (`objdump -s`), but for those with debugging symbols.
fn contents(dump: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut is_wanted = false;
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix("Contents of section ") {
            is_wanted = !name.contains(".debug") && !name.starts_with(".comment");
        } else if let (true, Some(rest)) = (is_wanted, line.strip_prefix(' ')) {
            // The offset, four groups of digits with a space behind each, one more space, the same as text.
            let digits = rest.split_once(' ').map_or("", |(_, digits)| digits.get(..36).unwrap_or(digits));
            let digits: Vec<u8> =
                digits.split("  ").next().unwrap_or_default().bytes().filter(u8::is_ascii_hexdigit).collect();
            bytes.extend(
                digits
                    .chunks_exact(2)
                    .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()),
            );
        }
    }
    bytes
}

/// Fails unless KASAN watches what the objects of Rust do to memory.
pub(crate) fn check_instrumented(compilers: &dyn Compilers, module: &Path) -> Result<()> {
    let folder = module.parent().context("the module is in no folder")?;
    for object in ["kernel-module/main.o", "format/src/lib.o"] {
        let object = folder.join(object);
        let symbols = run::capture(compilers.nm().args(["-u", "-j"]).arg(&object))?;
        if !symbols.lines().any(|symbol| symbol.starts_with("__asan_report_")) {
            bail!("{} is compiled without KASAN", object.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_from_machine_code() {
        let code = "Disassembly of section .text:\n\n0000000000000010 <main::read>:\n      \
                    10: pushq\t%rbp\n      11: pushq\t%rbx\n      12: subq\t$0x578, %rsp # imm = 0x578\n      \
                    20: callq\t0x30 <main::read+0x20>\n      25: addq\t$0x578, %rsp\n\n\
                    0000000000000040 <main::small>:\n      40: addq\t$-0x80, %rsp\n      44: retq\n";
        assert_eq!(frames(code).unwrap(), [(0x578 + 16, "main::read"), (0x80, "main::small")]);
        let unknown = "0000000000000010 <main::read>:\n      10: subq\t%rax, %rsp\n";
        assert!(frames(unknown).is_err());
    }

    #[test]
    fn bytes_are_read_from_a_dump() {
        let dump = "\nx.ko:     file format elf64-x86-64\n\nContents of section .rodata.str1.8:\n \
                    0000 2f686f6d 652f612f 696e636c 7564652f  /home/a/include/\n 0010 66732e68 00                          fs.h.\n\
                    Contents of section .debug_str:\n 0000 2f746d70                             /tmp\n";
        assert_eq!(contents(dump), b"/home/a/include/fs.h\0");
    }

    #[test]
    fn warnings_of_all_tools_are_found() {
        let log = "  RUSTC [M] kernel-module/main.o\n\
                   warning: unused variable: `x`\n\
                   helpers.c:3:1: warning: unused function\n\
                   WARNING: modpost: missing MODULE_LICENSE()\n\
                   tesserafs.o: warning: objtool: x() falls through\n\
                   \x20 note: this warning is explained elsewhere\n";
        assert_eq!(warnings(log).len(), 4);
    }
}
