//! System calls that the standard library does not offer, each behind a safe function.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::process::ExitStatus;

pub(crate) fn c_path(path: impl AsRef<Path>) -> io::Result<CString> {
    CString::new(path.as_ref().as_os_str().as_bytes())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(result: impl Into<i64>) -> io::Result<i64> {
    match result.into() {
        n if n < 0 => Err(io::Error::last_os_error()),
        n => Ok(n),
    }
}

fn own(result: i64) -> OwnedFd {
    // SAFETY: called with a descriptor that the kernel has just given out.
    unsafe { OwnedFd::from_raw_fd(result as RawFd) }
}

pub(crate) fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no memory involved.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

pub(crate) fn setns(fd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: no memory involved.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) }).map(drop)
}

/// Which side of a fork this is.
pub(crate) enum Fork {
    Parent(i32),
    Child,
}

/// Forks a sibling: its parent is this process's parent. PID namespaces set by `unshare` or `setns` apply.
///
/// # Safety
/// The process must be single-threaded.
pub(crate) unsafe fn fork_sibling() -> io::Result<Fork> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as fork(2): no stack, nothing shared.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags as libc::c_ulong,
            0usize,
            0usize,
            0usize,
            0usize,
        )
    })?;
    Ok(if pid == 0 {
        Fork::Child
    } else {
        Fork::Parent(pid as i32)
    })
}

pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory involved. pidfds are close-on-exec.
    check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(own)
}

pub(crate) fn pidfd_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            signal,
            std::ptr::null::<u8>(),
            0,
        )
    })
    .map(drop)
}

/// Reaps a child. `None`: still running.
pub(crate) fn wait_pidfd(fd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    const P_PIDFD: libc::idtype_t = 3;
    let flags = libc::WEXITED | libc::WNOHANG;
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: info is valid for writes; zeroed is a valid siginfo_t.
        let (result, info) = unsafe {
            let r = libc::waitid(
                P_PIDFD,
                fd.as_raw_fd() as libc::id_t,
                info.as_mut_ptr(),
                flags,
            );
            (r, info.assume_init())
        };
        match check(result) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(_) => {
                // SAFETY: filled in by waitid, or zero.
                let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
                return Ok((pid != 0).then_some(if info.si_code == libc::CLD_EXITED {
                    ExitStatus::Code(status)
                } else {
                    ExitStatus::Signal(status)
                }));
            }
        }
    }
}

/// Waits for descriptors to become readable.
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory involved.
        check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(|fd| Self(own(fd)))
    }

    pub(crate) fn add(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: fd.as_raw_fd() as u64,
        };
        // SAFETY: event outlives the call.
        check(unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd.as_raw_fd(),
                &raw mut event,
            )
        })
        .map(drop)
    }

    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        // SAFETY: a null event is allowed for removal.
        unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                fd.as_raw_fd(),
                std::ptr::null_mut(),
            )
        };
    }

    /// Numbers of readable descriptors; none when interrupted.
    pub(crate) fn wait(&self) -> Vec<RawFd> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 32];
        // SAFETY: room for 32 events.
        let n = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), 32, -1) };
        events
            .iter()
            .take(n.max(0) as usize)
            .map(|e| e.u64 as RawFd)
            .collect()
    }
}

/// `mount(2)`; empty strings mean null.
pub(crate) fn mount(
    source: &str,
    target: impl AsRef<Path>,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let (source, target, kind, data) = (
        c_path(source)?,
        c_path(target)?,
        c_path(kind)?,
        c_path(data)?,
    );
    let or_null = |s: &CString| {
        if s.is_empty() {
            std::ptr::null()
        } else {
            s.as_ptr()
        }
    };
    // SAFETY: strings outlive the call.
    check(unsafe {
        libc::mount(
            or_null(&source),
            target.as_ptr(),
            or_null(&kind),
            flags,
            or_null(&data).cast(),
        )
    })
    .map(drop)
}

const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;

/// A detached copy of what is seen at `path`, with everything mounted below it.
pub(crate) fn open_tree(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC as u32;
    // SAFETY: the string outlives the call.
    check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
        .map(own)
}

/// Attaches a detached tree.
pub(crate) fn attach_tree(tree: BorrowedFd<'_>, target: impl AsRef<Path>) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
    const MOVE_MOUNT_T_SYMLINKS: u32 = 0x10;
    let target = c_path(target)?;
    // SAFETY: the strings outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS,
        )
    })
    .map(drop)
}

/// Not writable.
pub(crate) const MOUNT_READ_ONLY: u64 = 1;
/// Set-user-id programs gain nothing.
pub(crate) const MOUNT_NO_SUID: u64 = 2;

/// Adds attributes to a mount: a descriptor and an empty path, or a path. `recursive`: with all mounts below.
pub(crate) fn mount_set(
    fd: Option<BorrowedFd<'_>>,
    path: &str,
    attributes: u64,
    recursive: bool,
) -> io::Result<()> {
    let path = c_path(path)?;
    let flags = if recursive { AT_RECURSIVE } else { 0 }
        | if fd.is_some() {
            libc::AT_EMPTY_PATH as u32
        } else {
            0
        };
    let attr: [u64; 4] = [attributes, 0, 0, 0];
    // SAFETY: struct mount_attr is four u64.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.map_or(libc::AT_FDCWD, |f| f.as_raw_fd()),
            path.as_ptr(),
            flags,
            attr.as_ptr(),
            size_of_val(&attr),
        )
    })
    .map(drop)
}

/// Makes the current directory the root and lets the old root go.
pub(crate) fn pivot_to_current_directory() -> io::Result<()> {
    // SAFETY: constant strings.
    unsafe {
        match check(libc::syscall(
            libc::SYS_pivot_root,
            c".".as_ptr(),
            c".".as_ptr(),
        )) {
            Ok(_) => check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH)).map(drop)?,
            // The old root is the kernel's first root file system (initramfs), which cannot be pivoted away.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                mount(".", "/", "", libc::MS_MOVE, "")?;
                check(libc::chroot(c".".as_ptr()))?;
            }
            Err(e) => return Err(e),
        }
    }
    std::env::set_current_dir("/")
}

pub(crate) fn sethostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length belong together.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: no memory involved.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }).map(drop)
}

pub(crate) fn prctl(option: i32, a: libc::c_ulong, b: libc::c_ulong) -> io::Result<()> {
    // SAFETY: used with options that take numbers only.
    check(unsafe { libc::prctl(option, a, b, 0 as libc::c_ulong, 0 as libc::c_ulong) }).map(drop)
}

/// Whether a capability is in the bounding set; `None` when the kernel has no capability of this number.
pub(crate) fn bounding_capability(number: u32) -> Option<bool> {
    // SAFETY: numbers only.
    match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) } {
        n if n < 0 => None,
        n => Some(n == 1),
    }
}

/// A pipe: (read end, write end), close-on-exec.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((own(fds[0].into()), own(fds[1].into())))
}

/// Makes `fd` the descriptor `number`, to be inherited.
pub(crate) fn dup_to(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        // SAFETY: clears close-on-exec.
        return check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: number is one of 0, 1, 2.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks all descriptors from 3 on close-on-exec.
pub(crate) fn close_others_on_exec() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: no memory involved.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// All signals as a new program expects them: Rust's runtime ignores SIGPIPE, and ignoring survives an exec.
pub(crate) fn default_signals() {
    // SAFETY: sets dispositions and an empty mask; numbers that cannot be set are refused.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Replaces the program. Returns only on failure.
pub(crate) fn execve(program: &Path, argv: &[String], env: &[(String, String)]) -> io::Error {
    let prepare = || -> io::Result<_> {
        let argv: Vec<CString> = argv.iter().map(c_path).collect::<io::Result<_>>()?;
        let env: Vec<CString> = env
            .iter()
            .map(|(k, v)| c_path(format!("{k}={v}")))
            .collect::<io::Result<_>>()?;
        Ok((c_path(program)?, argv, env))
    };
    let (program, argv, env) = match prepare() {
        Ok(p) => p,
        Err(e) => return e,
    };
    let pointers = |v: &[CString]| {
        v.iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect::<Vec<_>>()
    };
    // SAFETY: null-terminated arrays of strings that outlive the call.
    unsafe {
        libc::execve(
            program.as_ptr(),
            pointers(&argv).as_ptr(),
            pointers(&env).as_ptr(),
        )
    };
    io::Error::last_os_error()
}

/// New session; with `terminal`, standard input becomes its controlling terminal.
pub(crate) fn new_session(terminal: bool) -> io::Result<()> {
    // SAFETY: no memory involved.
    unsafe {
        libc::setsid();
        if terminal {
            check(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
        }
    }
    Ok(())
}

/// A new pseudo-terminal of the current mount namespace's /dev/pts: (controlling side, program's side).
pub(crate) fn open_terminal(rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    const TIOCGPTPEER: libc::c_ulong = 0x5441;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: constant string; ioctls with numbers or a valid pointer.
    unsafe {
        let main = own(check(libc::open(c"/dev/pts/ptmx".as_ptr(), flags))?);
        let unlock = 0i32;
        check(libc::ioctl(
            main.as_raw_fd(),
            libc::TIOCSPTLCK,
            &raw const unlock,
        ))?;
        let peer = own(check(libc::ioctl(main.as_raw_fd(), TIOCGPTPEER, flags))?);
        set_terminal_size(std::os::fd::AsFd::as_fd(&main), rows, columns)?;
        Ok((main, peer))
    }
}

pub(crate) fn set_terminal_size(fd: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: size outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

pub(crate) fn mknod(path: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the string outlives the call.
    check(unsafe {
        libc::mknod(
            path.as_ptr(),
            libc::S_IFCHR | mode,
            libc::makedev(major, minor),
        )
    })?;
    // mknod obeys the umask.
    // SAFETY: as above.
    check(unsafe { libc::chmod(path.as_ptr(), mode) }).map(drop)
}

pub(crate) fn chown_fd(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: no memory involved.
    check(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) }).map(drop)
}

pub(crate) fn set_rlimit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: limit outlives the call.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}

pub(crate) fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length belong together.
    unsafe {
        match check(libc::setgroups(groups.len(), groups.as_ptr())) {
            // An ordinary user's namespace must not drop groups.
            Err(e) if e.raw_os_error() == Some(libc::EPERM) && groups.is_empty() => {}
            other => drop(other?),
        }
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))?;
    }
    Ok(())
}

/// Sets the effective, permitted and inheritable capabilities to the bits of `set`.
pub(crate) fn set_capabilities(set: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let (low, high) = (set as u32, (set >> 32) as u32);
    let data = [low, low, low, high, high, high];
    // SAFETY: layout of cap_user_header_t and two cap_user_data_t.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Whether a peer has closed its end (or died).
pub(crate) fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: one pollfd.
    unsafe {
        libc::poll(&raw mut poll, 1, 0) > 0
            && poll.revents & (libc::POLLHUP | libc::POLLRDHUP | libc::POLLERR) != 0
    }
}

/// Shared objects of this process as the dynamic loader found them, its own path included; the program itself excluded.
pub(crate) fn shared_objects() -> Vec<std::path::PathBuf> {
    unsafe extern "C" fn add(
        info: *mut libc::dl_phdr_info,
        _: usize,
        data: *mut libc::c_void,
    ) -> i32 {
        // SAFETY: the loader gives a valid info; data is our vector.
        unsafe {
            let list = &mut *data.cast::<Vec<std::path::PathBuf>>();
            let name = (*info).dlpi_name;
            if !name.is_null() {
                let name = std::ffi::CStr::from_ptr(name).to_bytes();
                // The program has an empty name, the kernel's virtual object no path.
                if name.first() == Some(&b'/') {
                    list.push(std::ffi::OsStr::from_bytes(name).into());
                }
            }
        }
        0
    }
    let mut list: Vec<std::path::PathBuf> = Vec::new();
    // SAFETY: the callback is called during this call only.
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut list).cast()) };
    list
}
