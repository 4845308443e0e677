// SPDX-License-Identifier: GPL-2.0
//! System calls that neither std nor rustix has, each behind one safe function.

pub(crate) mod fanotify;
pub(crate) mod mapper;
mod usage;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) use self::usage::{major_faults, processor_seconds};

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Adds an X.509 certificate (DER) to a keyring.
pub(crate) fn add_certificate(keyring: i32, der: &[u8]) -> io::Result<()> {
    // SAFETY: The strings end in NUL, and the payload is `der.len()` readable bytes; the kernel copies them.
    checked(unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"asymmetric".as_ptr(),
            c"".as_ptr(),
            der.as_ptr(),
            der.len(),
            keyring,
        )
    })
    .map(|_| ())
}

/// `kexec_load` of nothing: forgets the kernel that would be started next, where kernels can be.
pub(crate) fn kexec_nothing() -> io::Result<()> {
    // SAFETY: No segment is read: there is none.
    checked(unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, std::ptr::null::<u8>(), 0) }).map(|_| ())
}

/// `struct loop_config`, with the fields of `struct loop_info64` that are set here.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// From the device's number to the limit of its size.
    places: [u64; 5],
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    /// Names, keys and reserved fields.
    rest: [u64; 30],
}

/// The UUID of the filesystem that `file` lies on.
pub(crate) fn uuid_of(file: &File) -> io::Result<[u8; 16]> {
    /// `_IOR(0x15, 0, struct fsuuid2)`
    const GET_UUID: libc::Ioctl = 0x8011_1500_u32 as libc::Ioctl;
    let mut found = [0_u8; 17];
    // SAFETY: `struct fsuuid2` is a length and 16 bytes.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), GET_UUID, found.as_mut_ptr()) }.into())?;
    let [length, uuid @ ..] = found;
    if length != 16 {
        return Err(io::Error::other(format!("a UUID of {length} bytes")));
    }
    Ok(uuid)
}

/// The folder below `/sys/fs` of the filesystem that `file` lies on.
pub(crate) fn sysfs_path_of(file: &File) -> io::Result<String> {
    /// `_IOR(0x15, 1, struct fs_sysfs_path)`
    const GET_SYSFS_PATH: libc::Ioctl = 0x8081_1501_u32 as libc::Ioctl;
    let mut found = [0_u8; 129];
    // SAFETY: `struct fs_sysfs_path` is a length and 128 bytes.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), GET_SYSFS_PATH, found.as_mut_ptr()) }.into())?;
    let [length, name @ ..] = found;
    let name = name.get(..usize::from(length)).ok_or_else(|| io::Error::other("a name that is too long"))?;
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// A loop device over `file`: its path, and the first of its users. It goes with the last.
pub(crate) fn loop_device(file: &File) -> io::Result<(PathBuf, File)> {
    const GET_FREE: libc::Ioctl = 0x4c82;
    const CONFIGURE: libc::Ioctl = 0x4c0a;
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
    let control = File::open("/dev/loop-control").map_err(|error| {
        let what =
            "found no loop devices in this kernel (/dev/loop-control), expected CONFIG_BLK_DEV_LOOP=y or m";
        io::Error::new(error.kind(), format!("{what}: {error}"))
    })?;
    // SAFETY: The call takes no memory.
    let number = checked(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) }.into())?;
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let device = File::open(&path)?;
    let config = LoopConfig {
        fd: file.as_raw_fd() as u32,
        block_size: 0,
        places: [0; 5],
        number: 0,
        encryption: [0; 2],
        flags: READ_ONLY | AUTOCLEAR,
        rest: [0; 30],
    };
    // SAFETY: `config` has the layout and the length of `struct loop_config`; nothing of it is kept.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, std::ptr::from_ref(&config)) }.into())?;
    Ok((path, device))
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

/// `struct file_handle` with room for the largest handle.
#[repr(C)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; libc::MAX_HANDLE_SZ as usize],
}

impl Handle {
    /// Makes it name a file that no file system has.
    pub(crate) fn scramble(&mut self) {
        self.data.fill(0xff);
    }
}

/// Moves this process, which must have one thread, into a new user namespace.
pub(crate) fn enter_user_namespace() -> io::Result<()> {
    // SAFETY: The call takes no memory, and changes nothing that Rust relies on.
    checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into()).map(|_| ())
}

/// Gives this process mounts of its own, which end with it.
pub(crate) fn enter_mount_namespace() -> io::Result<()> {
    // SAFETY: The call takes no memory, and changes nothing that Rust relies on.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into()).map(|_| ())
}

/// The owner that is shown for files whose owner a user namespace does not know.
pub(crate) const NOBODY: u32 = 65534;

/// Makes a program run as a user, in the user's own group and no other.
pub(crate) fn as_user(program: &mut Command, user: u32) {
    let change = move || {
        // SAFETY: No group is read: there is none.
        checked(unsafe { libc::setgroups(0, std::ptr::null()) }.into())?;
        // SAFETY: The call takes no memory.
        checked(unsafe { libc::setresgid(user, user, user) }.into())?;
        // SAFETY: As above.
        checked(unsafe { libc::setresuid(user, user, user) }.into()).map(|_| ())
    };
    // SAFETY: Between fork and exec it makes three system calls, and takes no lock and no memory.
    unsafe { program.pre_exec(change) };
}

/// Does something as a user with these groups, the first of which is the user's own. It is done on a thread
/// of its own, as the kernel's calls (not the library's) give the ids to one thread alone. Processes that it
/// starts have them, too.
pub(crate) fn acting_as<T: Send>(
    user: u32,
    groups: &[u32],
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    let own = *groups.first().ok_or(io::ErrorKind::InvalidInput)?;
    let become_user = || {
        let call = libc::SYS_setgroups;
        // SAFETY: As many groups are read as there are.
        checked(unsafe { libc::syscall(call, groups.len(), groups.as_ptr()) })?;
        for (call, id) in [(libc::SYS_setresgid, own), (libc::SYS_setresuid, user)] {
            // SAFETY: The calls take no memory, and change this thread alone, which ends with `work`.
            checked(unsafe { libc::syscall(call, id, id, id) })?;
        }
        Ok(work())
    };
    std::thread::scope(|scope| {
        scope.spawn(become_user).join().map_err(|_| io::Error::other("a thread panicked"))?
    })
}

/// Gives the loopback interface its address, and switches it on.
pub(crate) fn loopback() -> io::Result<()> {
    // SAFETY: Zeros are a valid `struct ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (field, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *field = *byte as libc::c_char;
    }
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let set = |request: &libc::ifreq, call: libc::Ioctl| {
        // SAFETY: The request is as large as the call expects; nothing of it is kept.
        checked(unsafe { libc::ioctl(socket.as_raw_fd(), call, std::ptr::from_ref(request)) }.into())
    };
    request.ifr_ifru.ifru_addr = libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        // A port, and 127.0.0.1.
        sa_data: [0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    set(&request, libc::SIOCSIFADDR as libc::Ioctl)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    set(&request, libc::SIOCSIFFLAGS as libc::Ioctl).map(|_| ())
}

/// `F_OFD_SETLK`: locks bytes for an open file (`F_RDLCK`, `F_WRLCK`), or unlocks them (`F_UNLCK`).
pub(crate) fn lock_bytes(file: &File, kind: libc::c_int, start: i64, length: i64) -> io::Result<()> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    };
    // SAFETY: `lock` is as large as the call expects; nothing of it is kept.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, std::ptr::from_ref(&lock)) }.into())
        .map(|_| ())
}

/// `F_SETLEASE`.
pub(crate) fn set_lease(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: The call takes no memory.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) }.into()).map(|_| ())
}

/// `F_GETLEASE`.
pub(crate) fn lease(file: &File) -> io::Result<libc::c_int> {
    // SAFETY: The call takes no memory.
    let kind = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) };
    checked(kind.into()).map(|_| kind)
}

/// Moves this process, which must have one thread, into a new user namespace, whose root it is, with mounts of
/// its own.
pub(crate) fn become_root_of_a_namespace() -> io::Result<()> {
    // SAFETY: The calls take no memory.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: The call takes no memory, and changes nothing that Rust relies on.
    checked(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) }.into())?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Lets everybody read a file.
pub(crate) fn let_all_read(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

/// Signals that were handled.
static ALARMS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_alarm(_: libc::c_int) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

/// How many signals were handled since [`start_alarms`].
pub(crate) fn alarms() -> u32 {
    ALARMS.load(Ordering::Relaxed)
}

/// Sends this process a signal each `period`, which it handles; calls that it interrupts are not restarted.
pub(crate) fn start_alarms(period: Duration) -> io::Result<()> {
    // SAFETY: All-zero bytes are a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count_alarm as extern "C" fn(libc::c_int) as usize;
    // SAFETY: The handler only adds to an atomic; `action` is as large as the call expects.
    checked(unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) }.into())?;
    let time = libc::timeval { tv_sec: 0, tv_usec: i64::from(period.subsec_micros()) };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: `timer` is as large as the call expects.
    checked(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) }.into()).map(|_| ())
}

/// `readahead`: asks for bytes of a file.
pub(crate) fn readahead(file: &File, offset: u64, len: usize) -> io::Result<()> {
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: The call takes no memory.
    checked(unsafe { libc::readahead(file.as_raw_fd(), offset, len) } as libc::c_long).map(|_| ())
}

/// `name_to_handle_at`: the handle by which an NFS server remembers a file.
pub(crate) fn handle_of(path: &Path) -> io::Result<Handle> {
    let path = path_of(path)?;
    let mut handle =
        Handle { bytes: libc::MAX_HANDLE_SZ as u32, kind: 0, data: [0; libc::MAX_HANDLE_SZ as usize] };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: `handle` has the layout of `struct file_handle` followed by as many bytes as it says.
    checked(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            std::ptr::from_mut(&mut handle),
            std::ptr::from_mut(&mut mount_id),
            0,
        )
    })?;
    Ok(handle)
}

/// `open_by_handle_at` for reading.
pub(crate) fn open_handle(mount: &File, handle: &mut Handle) -> io::Result<File> {
    // SAFETY: `handle` has the layout that the call reads; nothing of it is kept.
    let fd = checked(unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            std::ptr::from_mut(handle),
            libc::O_RDONLY,
        )
    })?;
    // SAFETY: The call has just returned this descriptor, and nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd as libc::c_int) })
}

/// A clone of a mount whose ids go through the mapping of a user namespace, attached to `target`.
pub(crate) fn idmapped_clone(source: &Path, target: &Path, namespace: &File) -> io::Result<()> {
    let (source, target) = (path_of(source)?, path_of(target)?);
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: The path ends in NUL.
    let tree =
        checked(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags) })?;
    // SAFETY: The call has just returned this descriptor, and nobody else owns it.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as libc::c_int) };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    // SAFETY: The path ends in NUL; `attributes` is as large as the call is told.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attributes),
            size_of::<libc::mount_attr>(),
        )
    })?;
    // SAFETY: Both paths end in NUL.
    checked(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(|_| ())
}

/// Makes a program start in another root.
pub(crate) fn enter_root(program: &mut Command, root: &Path) -> io::Result<()> {
    let root = path_of(root)?;
    let enter = move || {
        // SAFETY: Both paths end in NUL.
        checked(unsafe { libc::chroot(root.as_ptr()) }.into())?;
        // SAFETY: The path ends in NUL.
        checked(unsafe { libc::chdir(c"/".as_ptr()) }.into()).map(|_| ())
    };
    // SAFETY: Between fork and exec it makes two system calls, and takes no lock and no memory.
    unsafe { program.pre_exec(enter) };
    Ok(())
}

/// A directory stream with positions, as `opendir(3)` has it.
pub(crate) struct Directory {
    stream: *mut libc::DIR,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = path_of(path)?;
        // SAFETY: The path ends in NUL.
        let stream = unsafe { libc::opendir(path.as_ptr()) };
        if stream.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { stream })
    }

    /// The next name; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        // SAFETY: errno is this thread's own.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: The stream is open until this value is dropped.
        let entry = unsafe { libc::readdir(self.stream) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(0) | None => Ok(None),
                Some(_) => Err(error),
            };
        }
        // SAFETY: `readdir` returned an entry, whose name ends in NUL and stays until the next call.
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) };
        Ok(Some(name.to_bytes().to_vec()))
    }

    /// The position before the next name.
    pub(crate) fn tell(&self) -> i64 {
        // SAFETY: The stream is open until this value is dropped.
        unsafe { libc::telldir(self.stream) }
    }

    /// Goes back to a position that `tell` returned.
    pub(crate) fn seek(&mut self, position: i64) {
        // SAFETY: The stream is open until this value is dropped.
        unsafe { libc::seekdir(self.stream, position) }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // SAFETY: The stream is open and is not used after this.
        unsafe { libc::closedir(self.stream) };
    }
}

/// A file mapped for reading.
pub(crate) struct Mapping {
    address: *mut libc::c_void,
    length: usize,
}

/// A new mapping at a place that the kernel chooses.
fn map(
    file: &File,
    offset: i64,
    length: usize,
    rights: libc::c_int,
    kind: libc::c_int,
) -> io::Result<*mut libc::c_void> {
    // SAFETY: Nothing is mapped there yet.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, kind, file.as_raw_fd(), offset) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(address)
}

impl Mapping {
    pub(crate) fn new(file: &File, length: usize) -> io::Result<Self> {
        Self::at(file, 0, length)
    }

    /// From a multiple of the page size on, of a file that nobody writes to while it is mapped: one of an image, or of
    /// an overlay of this test alone.
    pub(crate) fn at(file: &File, offset: i64, length: usize) -> io::Result<Self> {
        let address = map(file, offset, length, libc::PROT_READ, libc::MAP_PRIVATE)?;
        Ok(Self { address, length })
    }

    /// The mapped bytes. Touching a page that the file system refuses to read ends the process.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: The mapping is `length` bytes long and lives as long as `self`; nobody writes to its file, as `at` says.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.length) }
    }
}

impl Mapping {
    /// Tells the kernel how it will be used.
    pub(crate) fn advise(&self, advice: rustix::mm::Advice) -> io::Result<()> {
        // SAFETY: The mapping is `length` bytes long, and was never written: pages that go come back as they
        // were.
        unsafe { rustix::mm::madvise(self.address, self.length, advice) }.map_err(Into::into)
    }

    /// How many of its pages are in memory, whichever process read them.
    pub(crate) fn resident(&self) -> io::Result<usize> {
        let mut pages = vec![0_u8; self.length.div_ceil(4096)];
        // SAFETY: The mapping is `length` bytes long, and the vector has a byte for each of its pages.
        checked(unsafe { libc::mincore(self.address, self.length, pages.as_mut_ptr()) }.into())?;
        Ok(pages.iter().filter(|page| **page & 1 == 1).count())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping was made in `new` and is not used after this.
        unsafe { libc::munmap(self.address, self.length) };
    }
}

/// A file mapped for reading and writing. It is never borrowed: others may change it.
pub(crate) struct WritableMapping {
    address: *mut libc::c_void,
    length: usize,
}

impl WritableMapping {
    /// Written bytes go to the file.
    pub(crate) fn shared(file: &File, length: usize) -> io::Result<Self> {
        Self::new(file, length, libc::MAP_SHARED)
    }

    /// Written bytes stay here.
    pub(crate) fn private(file: &File, length: usize) -> io::Result<Self> {
        Self::new(file, length, libc::MAP_PRIVATE)
    }

    fn new(file: &File, length: usize, kind: libc::c_int) -> io::Result<Self> {
        let address = map(file, 0, length, libc::PROT_READ | libc::PROT_WRITE, kind)?;
        Ok(Self { address, length })
    }

    /// Writes at a place. Touching a page behind the end of the file ends the process.
    pub(crate) fn write(&self, place: usize, bytes: &[u8]) {
        assert!(place + bytes.len() <= self.length, "{} bytes at {place} of {}", bytes.len(), self.length);
        // SAFETY: That many bytes from there are in the mapping, and nobody has a reference to them.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.cast::<u8>().add(place), bytes.len());
        }
    }

    /// Reads bytes of a file to a place.
    pub(crate) fn fill(&self, place: usize, length: usize, file: &File, offset: i64) -> io::Result<usize> {
        assert!(place + length <= self.length, "{length} bytes at {place} of {}", self.length);
        // SAFETY: That many bytes from there are in the mapping, and nobody has a reference to them.
        let read = unsafe {
            libc::pread(file.as_raw_fd(), self.address.cast::<u8>().add(place).cast(), length, offset)
        };
        checked(read as libc::c_long).map(|length| length as usize)
    }

    /// The mapped bytes up to a place.
    pub(crate) fn read(&self, length: usize) -> Vec<u8> {
        assert!(length <= self.length, "{length} bytes of {}", self.length);
        let mut bytes = vec![0; length];
        // SAFETY: The vector and the mapping have that many bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(self.address.cast::<u8>(), bytes.as_mut_ptr(), length);
        }
        bytes
    }
}

impl Drop for WritableMapping {
    fn drop(&mut self) {
        // SAFETY: The mapping was made in `new` and is not used after this.
        unsafe { libc::munmap(self.address, self.length) };
    }
}
