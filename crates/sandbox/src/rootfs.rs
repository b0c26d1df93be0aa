//! A container's root directory, put together in its new mount namespace.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::container::{ContainerSpec, Mount, MountSource, RootFs};
use crate::error::Context;
use crate::helper::SELF;
use crate::{Error, Result, sys};

/// The program in every container.
const PROGRAM: &str = "/bin/theater";
const ROOT_BYTES: u64 = 256 << 20;

/// A detached copy of this executable's mount, taken while still in the caller's mount namespace. `None` when its file has
/// been replaced (the kernel does not mount deleted files) or no mount of ours leads to it: it is copied then.
pub(crate) fn own_executable() -> Option<OwnedFd> {
    let path = fs::read_link(SELF).ok()?;
    let (there, running) = (fs::metadata(&path).ok(), fs::metadata(SELF).ok()?);
    let same =
        there.is_some_and(|there| (there.dev(), there.ino()) == (running.dev(), running.ino()));
    if !same && path.as_os_str().as_bytes().ends_with(b" (deleted)") {
        return None;
    }
    // The link leads to the mount that the program was executed from; that one may belong to another namespace.
    let by_path = || same.then(|| sys::open_tree(&path).ok()).flatten();
    let tree = sys::open_tree(SELF).ok().or_else(by_path)?;
    sys::mount_set(
        Some(tree.as_fd()),
        "",
        sys::MOUNT_READ_ONLY | sys::MOUNT_NO_SUID,
        true,
    )
    .ok()?;
    Some(tree)
}

/// A tree of this machine and where it will be seen.
struct Tree {
    tree: OwnedFd,
    at: PathBuf,
    directory: bool,
}

fn take(source: &Path, at: &Path, read_only: bool) -> Result<Tree> {
    let directory = fs::metadata(source)
        .doing(format_args!("mount {}", source.display()))?
        .is_dir();
    let tree = sys::open_tree(source).doing(format_args!("mount {}", source.display()))?;
    if read_only {
        let attributes = sys::MOUNT_READ_ONLY | sys::MOUNT_NO_SUID;
        sys::mount_set(Some(tree.as_fd()), "", attributes, true)
            .doing(format_args!("make {} read-only", source.display()))?;
    }
    Ok(Tree {
        tree,
        at: at.to_owned(),
        directory,
    })
}

impl Tree {
    fn attach(&self) -> Result<()> {
        let at = || format!("mount at {}", self.at.display());
        if self.directory {
            directories(&self.at)?;
        } else if !self.at.exists() {
            empty_file(&self.at)?;
        }
        sys::attach_tree(self.tree.as_fd(), &self.at).doing(at())
    }
}

fn directories(path: &Path) -> Result<()> {
    fs::create_dir_all(path).doing(format_args!("create directory {}", path.display()))
}

fn parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), directories)
}

fn empty_file(path: &Path) -> Result<()> {
    write(path, b"", 0o644)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let doing = || format!("write {}", path.display());
    parent(path)?;
    fs::write(path, content).doing(doing())?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).doing(doing())
}

/// `path` shows `target`; what is there already stays.
fn link(target: &str, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    parent(path)?;
    match symlink(target, path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(e).doing(format_args!("create link {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Builds the root and moves into it. Runs as the first process of the container's PID namespace, in its own mount namespace.
pub(crate) fn enter(
    spec: &ContainerSpec,
    hostname: &str,
    executable: Option<OwnedFd>,
) -> Result<()> {
    let root = &spec.rootfs;
    sys::mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").doing("make mounts private")?;

    // Everything of the machine is taken hold of first: the new root hides the place it is built at.
    let program = executable.map(|tree| Tree {
        tree,
        at: PROGRAM.into(),
        directory: false,
    });
    let mut system = Vec::new();
    let mut links = Vec::new();
    if root.host_programs {
        for path in [
            "/usr",
            "/lib",
            "/lib32",
            "/lib64",
            "/libx32",
            "/sbin",
            "/etc/alternatives",
        ] {
            let path = Path::new(path);
            match fs::symlink_metadata(path) {
                Ok(m) if m.is_symlink() => {
                    links.push((fs::read_link(path).doing("read a link")?, path))
                }
                Ok(_) => system.push(take(path, path, true)?),
                Err(_) => {}
            }
        }
    } else {
        for path in sys::shared_objects() {
            system.push(take(&path, &path, true)?);
        }
    }
    let cache = Path::new("/etc/ld.so.cache");
    if cache.exists() {
        system.push(take(cache, cache, true)?);
    }
    let mut mounts = Vec::new();
    for m in &root.mounts {
        if !m.destination.is_absolute() || m.destination == Path::new("/") {
            return Err(Error::Invalid(format!(
                "mount destination {:?} must be an absolute path below /",
                m.destination
            )));
        }
        mounts.push(match &m.source {
            MountSource::Host(path) => Some(take(path, &m.destination, m.read_only)?),
            _ => None,
        });
    }

    let stage = ["/sys", "/mnt", "/tmp"]
        .into_iter()
        .find(|p| Path::new(p).is_dir());
    let stage = stage.ok_or_else(|| {
        Error::Invalid("none of /sys, /mnt, /tmp exists to build a root at".into())
    })?;
    let copied = if program.is_none() {
        fs::metadata(SELF).map_or(0, |m| m.len())
    } else {
        0
    };
    let size = spec.limits.root_bytes.unwrap_or(ROOT_BYTES) + copied;
    sys::mount(
        "tmpfs",
        stage,
        "tmpfs",
        libc::MS_NOSUID,
        &format!("mode=755,size={size}"),
    )
    .doing("mount the container's root")?;
    std::env::set_current_dir(stage).doing("enter the container's root")?;
    for name in [
        "proc", "dev", "bin", "etc", "tmp", "run", "var", "root", "usr",
    ] {
        fs::create_dir(name).doing(format_args!("create /{name}"))?;
    }
    // A user namespace may mount /proc only while the old one is visible.
    sys::mount(
        "proc",
        "proc",
        "proc",
        libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        "",
    )
    .doing("mount /proc")?;
    devices()?;
    if program.is_none() {
        fs::copy(SELF, "bin/theater").doing("copy this executable (its file was replaced)")?;
        fs::set_permissions("bin/theater", fs::Permissions::from_mode(0o755))
            .doing("make this executable's copy executable")?;
    }
    sys::pivot_to_current_directory().doing("change the root directory")?;

    // From here on, paths are the container's.
    for (target, path) in links {
        symlink(&target, path).doing(format_args!("create link {}", path.display()))?;
    }
    for tree in program.iter().chain(&system) {
        tree.attach()?;
    }
    base(root, hostname, spec)?;
    for applet in &root.applets {
        if applet.contains('/') {
            link(PROGRAM, applet)?
        } else {
            link("theater", format!("/bin/{applet}"))?
        }
    }
    for (m, tree) in root.mounts.iter().zip(&mounts) {
        mount(m, tree.as_ref())?;
    }
    hide_kernel_controls();
    if !spec.cwd.as_os_str().is_empty() {
        directories(&spec.cwd)?;
    }
    if root.read_only {
        sys::mount_set(None, "/", sys::MOUNT_READ_ONLY, false).doing("make the root read-only")?;
    }
    Ok(())
}

fn mount(m: &Mount, tree: Option<&Tree>) -> Result<()> {
    let at = &m.destination;
    match &m.source {
        MountSource::Host(_) => tree.map_or(Ok(()), Tree::attach),
        MountSource::Tmpfs { size_bytes, mode } => {
            directories(at)?;
            let size = size_bytes.map(|s| format!(",size={s}")).unwrap_or_default();
            let flags =
                libc::MS_NOSUID | libc::MS_NODEV | if m.read_only { libc::MS_RDONLY } else { 0 };
            sys::mount("tmpfs", at, "tmpfs", flags, &format!("mode={mode:o}{size}"))
                .doing(format_args!("mount memory at {}", at.display()))
        }
        MountSource::File { content, mode } => {
            write(at, content, if m.read_only { mode & !0o222 } else { *mode })
        }
    }
}

/// /dev, relative to the current directory, before the machine's own is out of sight.
fn devices() -> Result<()> {
    const DEVICES: [(&str, u32, u32); 6] = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    for (name, major, minor) in DEVICES {
        let path = format!("dev/{name}");
        if sys::mknod(&path, 0o666, major, minor).is_ok() {
            continue;
        }
        // User namespaces may not make devices: show the machine's.
        empty_file(Path::new(&path))?;
        let device = format!("/dev/{name}");
        let tree = sys::open_tree(&device).doing(format_args!("mount {device}"))?;
        sys::attach_tree(tree.as_fd(), &path).doing(format_args!("mount {device}"))?;
    }
    for (target, name) in [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ] {
        symlink(target, format!("dev/{name}")).doing(format_args!("create /dev/{name}"))?;
    }
    fs::create_dir("dev/pts").doing("create /dev/pts")?;
    sys::mount(
        "devpts",
        "dev/pts",
        "devpts",
        libc::MS_NOSUID | libc::MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620",
    )
    .doing("mount /dev/pts")?;
    fs::create_dir("dev/shm").doing("create /dev/shm")?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    sys::mount("tmpfs", "dev/shm", "tmpfs", flags, "mode=1777,size=64m").doing("mount /dev/shm")
}

/// Directories, links and the files of /etc that programs expect.
fn base(root: &RootFs, hostname: &str, spec: &ContainerSpec) -> Result<()> {
    for path in ["/tmp", "/var/tmp"] {
        directories(Path::new(path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o1777))
            .doing(format_args!("open {path} to all"))?;
    }
    fs::set_permissions("/root", fs::Permissions::from_mode(0o700)).doing("close /root")?;
    link("../run", "/var/run")?;
    if !root.host_programs {
        link("bin", "/sbin")?;
        link("../bin", "/usr/bin")?;
        link("../bin", "/usr/sbin")?;
    }
    let hosts = if root.hosts.is_empty() {
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    } else {
        &root.hosts
    };
    let (mut passwd, mut group) = (
        String::from("root:x:0:0:root:/root:/bin/sh\n"),
        String::from("root:x:0:\n"),
    );
    for (id, name) in [(1337, "istio-proxy"), (65534, "nobody")] {
        passwd += &format!("{name}:x:{id}:{id}:{name}:/:/bin/sh\n");
        group += &format!("{name}:x:{id}:\n");
    }
    let user = &spec.user;
    if ![0, 1337, 65534].contains(&user.uid) {
        passwd += &format!("user:x:{}:{}:user:/:/bin/sh\n", user.uid, user.gid);
    }
    if ![0, 1337, 65534].contains(&user.gid) {
        group += &format!("user:x:{}:\n", user.gid);
    }
    for (name, content) in [
        ("hosts", hosts),
        ("hostname", &format!("{hostname}\n")),
        ("resolv.conf", &root.resolv_conf),
        ("passwd", &passwd),
        ("group", &group),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
        ),
    ] {
        write(&Path::new("/etc").join(name), content.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// What the kernel shows under /proc beyond the container is made read-only or covered, as container runtimes do. Not every kernel has
/// every one of them, and as an ordinary user they are out of reach anyway.
fn hide_kernel_controls() {
    for path in [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ] {
        if let Ok(tree) = sys::open_tree(path)
            && sys::mount_set(Some(tree.as_fd()), "", sys::MOUNT_READ_ONLY, true).is_ok()
        {
            let _ = sys::attach_tree(tree.as_fd(), path);
        }
    }
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        if Path::new(path).exists()
            && let Ok(tree) = sys::open_tree("/dev/null")
        {
            let _ = sys::attach_tree(tree.as_fd(), path);
        }
    }
}

/// Standard input without content.
pub(crate) fn dev_null() -> io::Result<OwnedFd> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/null")
        .map(OwnedFd::from)
}
