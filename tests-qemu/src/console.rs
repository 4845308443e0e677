// SPDX-License-Identifier: GPL-2.0
//! The lines that a kernel writes to its console when something is wrong with it.
//!
//! Any of these makes a run fail, whatever the verdict says: a test that passed on a kernel that
//! complained has not passed. A complaint that the table does not know by name is recognised by the way in
//! which the kernel begins such lines.

/// A text and what it means.
struct Cry {
    text: &'static str,
    meaning: &'static str,
    fatal: bool,
}

const fn cry(text: &'static str, meaning: &'static str, fatal: bool) -> Cry {
    Cry { text, meaning, fatal }
}

/// Death cries; `fatal` ones leave nothing worth waiting for.
const CRIES: &[Cry] = &[
    cry("Kernel panic - not syncing", "panic", true),
    cry("BUG: KASAN", "invalid memory access", false),
    cry("BUG: KFENCE", "invalid memory access", false),
    cry("BUG: kernel NULL pointer dereference", "null pointer", true),
    cry("BUG: unable to handle", "page fault in the kernel", true),
    cry("kernel BUG at", "BUG()", true),
    cry("Oops:", "oops", true),
    cry("general protection fault", "general protection fault", true),
    cry("double fault", "double fault", true),
    cry("stack segment:", "stack fault", true),
    cry("rust_kernel: panicked at", "panic in Rust code", true),
    cry("WARNING: CPU:", "WARN()", false),
    cry("WARNING: possible circular locking", "lock order", false),
    cry("WARNING: possible recursive locking", "lock taken twice", false),
    cry("WARNING: inconsistent lock state", "lock state", false),
    cry("WARNING: bad unlock balance", "unlock without lock", false),
    cry("WARNING: suspicious RCU usage", "RCU usage", false),
    cry("WARNING: held lock freed", "lock freed while held", false),
    cry("[ BUG: Invalid wait context ]", "sleeping lock under a spinning one", false),
    cry("INFO: trying to register non-static key", "lock without a class", false),
    cry("possible circular locking dependency", "lock order", false),
    cry("possible recursive locking detected", "lock taken twice", false),
    cry("rcu_preempt detected stalls", "RCU stall", false),
    cry("rcu_sched detected stalls", "RCU stall", false),
    cry("rcu: INFO:", "RCU stall", false),
    cry("self-detected stall on CPU", "RCU stall", false),
    cry("BUG: soft lockup", "soft lockup", false),
    cry("BUG: workqueue lockup", "workqueue lockup", false),
    cry("blocked for more than", "hung task", false),
    cry("refcount_t:", "refcount", false),
    cry("BUG: sleeping function called from invalid context", "sleep in atomic context", false),
    cry("BUG: scheduling while atomic", "sleep in atomic context", true),
    cry("BUG: Bad page", "page state", false),
    cry("BUG: Bad rss-counter", "memory accounting", false),
    cry("BUG: non-zero pgtables_bytes", "memory accounting", false),
    cry("Busy inodes after unmount", "inodes leaked", false),
    cry("still in use (", "dentries leaked", false),
    cry("Objects remaining", "slab objects leaked", false),
    cry("Poison overwritten", "freed memory was written to", false),
    cry("Redzone overwritten", "write beyond an object", false),
    cry("pagealloc: ", "freed page was written to", false),
    cry("page dumped because:", "page state", false),
    cry("ODEBUG:", "object in use freed, or started twice", false),
    cry("Insufficient stack space", "stack overflow", true),
    cry("corrupted stack end", "stack overflow", true),
    cry("list_add corruption", "list corrupted", false),
    cry("list_del corruption", "list corrupted", false),
    cry("UBSAN:", "undefined behaviour", false),
    cry("kmemleak:", "memory leak", false),
    cry("suspected memory leaks", "memory leak", false),
    cry("Out of memory: Killed process", "out of memory", false),
    cry("page allocation failure", "allocation failed", false),
    cry("Attempted to kill init", "init died", true),
    // The rest of their kind. The bracket ends the time of a kernel line: programs print such words, too.
    cry("] WARNING: ", "WARN()", false),
    cry("] BUG", "defect", false),
];

/// A death cry that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Its meaning.
    pub(crate) meaning: &'static str,
    /// The line.
    pub(crate) line: String,
    /// Whether the machine is lost.
    pub(crate) fatal: bool,
}

/// Finds a death cry in a line of the console.
pub(crate) fn hear(line: &str) -> Option<Heard> {
    CRIES.iter().find(|cry| line.contains(cry.text)).map(|cry| Heard {
        meaning: cry.meaning,
        line: line.trim().to_owned(),
        fatal: cry.fatal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_recognised() {
        let lines = [
            "[    1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0",
            // As older kernels word it, and as 7.3 does.
            "[    1.0] WARNING: CPU: 1 PID: 1 at fs/inode.c:417 drop_nlink+0x2a/0x40",
            "[    1.0] WARNING: fs/inode.c:417 at drop_nlink+0x2a/0x40, CPU#1: init/1",
            "[    1.0] WARNING: lock held when returning to user space!",
            "[    1.0] [ BUG: Invalid wait context ]",
            "[    1.0] BUG: MAX_LOCKDEP_CHAINS too low!",
            "[    1.0] BUG kmalloc-64 (Tainted: G           O       ): Poison overwritten",
            "[    1.0] BUG dentry (Tainted: G           O       ): Invalid object pointer",
            "[    1.0] pagealloc: memory corruption",
            "[    1.0] page dumped because: VM_BUG_ON_FOLIO(folio_test_locked(folio))",
            "[    1.0] INFO: trying to register non-static key.",
            "[    1.0] ODEBUG: free active (active state 0) object: work_struct",
            "[    1.0] WARNING: possible circular locking dependency detected",
            "[    1.0] WARNING: possible recursive locking detected",
            "[    1.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
            "[    1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [init:1]",
            "[    1.0] INFO: task init:1 blocked for more than 120 seconds.",
            "[    1.0] refcount_t: underflow; use-after-free.",
            "[    1.0] BUG: sleeping function called from invalid context at mm/slab.h:1",
            "[    1.0] UBSAN: array-index-out-of-bounds in fs/x.c:1:1",
            "[    1.0] BUG: KASAN: slab-use-after-free in x+0x1/0x2",
            "[    1.0] Oops: 0002 [#1] SMP",
            "[    1.0] kmemleak: 3 new suspected memory leaks",
            "[    1.0] VFS: Busy inodes after unmount of sda (tesserafs)",
        ];
        for line in lines {
            assert!(hear(line).is_some(), "{line}");
        }
        assert_eq!(hear(lines[0]).unwrap().meaning, "panic");
    }

    #[test]
    fn ordinary_lines_are_not() {
        for line in [
            "[    0.0] Linux version 7.3.4",
            "[    0.1] tesserafs: digest mismatch @ chunk 3",
            "[    0.1] rcu: Hierarchical RCU implementation.",
            "[    0.1] tesserafs: loading out-of-tree module taints kernel.",
            "WARNING: apt does not have a stable CLI interface.",
        ] {
            assert_eq!(hear(line), None, "{line}");
        }
    }
}
