//! What the machine must offer, and what to tell a person when it does not.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::Context;
use crate::helper::{Answer, Reply};
use crate::links::{self, End, Links};
use crate::nft::{self, SetKind, Value};
use crate::service_nat::{self, NatRule, Protocol};
use crate::{Cidr, Error, Result, Unsupported, redirect, rootfs, sys};

/// Leaves the host's namespaces of the given kinds: directly where that is allowed, else in a user namespace in which this user is root.
pub(crate) fn leave_host(kinds: i32) -> Result<()> {
    match sys::unshare(kinds) {
        Ok(()) => return Ok(()),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
        Err(e) => return Err(unsupported("namespaces", &e).into()),
    }
    // SAFETY: no memory involved.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    sys::unshare(libc::CLONE_NEWUSER | kinds).map_err(|e| unsupported("user namespaces", &e))?;
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|e| unsupported("user namespaces", &e))
    };
    write("setgroups", "deny")?;
    write("uid_map", &format!("0 {uid} 1"))?;
    write("gid_map", &format!("0 {gid} 1"))?;
    Ok(())
}

/// Facts about the machine that explain a refusal.
struct Machine {
    root: bool,
    container: bool,
    /// kernel.unprivileged_userns_clone (Debian)
    clone_forbidden: bool,
    /// user.max_user_namespaces
    none_allowed: bool,
    /// kernel.apparmor_restrict_unprivileged_userns (Ubuntu)
    apparmor: bool,
}

impl Machine {
    fn here() -> Self {
        let is = |path: &str, value: &str| {
            fs::read_to_string(format!("/proc/sys/{path}")).is_ok_and(|v| v.trim() == value)
        };
        let mark = |path: &str| fs::metadata(path).is_ok();
        Self {
            // SAFETY: no memory involved.
            root: unsafe { libc::geteuid() } == 0,
            container: mark("/.dockerenv")
                || mark("/run/.containerenv")
                || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
            clone_forbidden: is("kernel/unprivileged_userns_clone", "0"),
            none_allowed: is("user/max_user_namespaces", "0"),
            apparmor: is("kernel/apparmor_restrict_unprivileged_userns", "1"),
        }
    }

    /// Cause and remedy of a refusal.
    fn explain(&self, feature: &str, error: &io::Error) -> Unsupported {
        let (why, remedy) = match error.raw_os_error() {
            _ if self.none_allowed => {
                ("user.max_user_namespaces is 0".to_owned(), "run `sudo sysctl -w user.max_user_namespaces=15000`")
            }
            Some(libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EROFS) if self.container => (
                format!("the container around this process forbids it: {error}"),
                "start that container with `--privileged` (or with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined --cap-add SYS_ADMIN --cap-add NET_ADMIN`)",
            ),
            Some(libc::EPERM | libc::EACCES) if self.clone_forbidden && !self.root => {
                ("kernel.unprivileged_userns_clone is 0".to_owned(), "run `sudo sysctl -w kernel.unprivileged_userns_clone=1`, or run as root")
            }
            Some(libc::EPERM | libc::EACCES) if self.apparmor && !self.root => (
                "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)".to_owned(),
                "run `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or run as root",
            ),
            Some(libc::EPERM | libc::EACCES) if !self.root => (error.to_string(), "run as root, or allow user namespaces for this user"),
            Some(libc::ENOSPC) => ("too many namespaces exist".to_owned(), "raise user.max_user_namespaces and user.max_net_namespaces with sysctl"),
            Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT | libc::EPROTONOSUPPORT) => {
                (format!("the kernel lacks it: {error}"), "use Linux 5.12 or newer with namespaces, veth, bridge and nf_tables (NAT) enabled")
            }
            _ => (error.to_string(), "run as root on Linux 5.12 or newer"),
        };
        Unsupported {
            what: format!("this machine does not allow {feature}: {why}"),
            remedy: remedy.to_owned(),
        }
    }
}

/// Names what is missing and the remedy.
pub(crate) fn unsupported(feature: &str, error: &io::Error) -> Unsupported {
    Machine::here().explain(feature, error)
}

/// Turns a refused system call into what is missing and the remedy.
pub(crate) fn because(feature: &'static str) -> impl FnOnce(Error) -> Error {
    move |e| match e {
        Error::System { source, .. } => Error::Unsupported(unsupported(feature, &source)),
        e => e,
    }
}

/// Helper: does once, in namespaces of its own, what sandboxes do.
pub(crate) fn helper() -> Reply {
    leave_host(libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC)?;
    mounts().map_err(because("private mounts (mount, open_tree, mount_setattr)"))?;
    links::sysctl("net/ipv4/ip_forward", "1")
        .map_err(because("network settings under /proc/sys"))?;
    network().map_err(because("virtual networks (veth, bridge)"))?;
    firewall().map_err(because(
        "address translation (nf_tables with nat, redir, masq, numgen, reject)",
    ))?;
    // Whether /proc may be mounted shows only inside a PID namespace.
    sys::unshare(libc::CLONE_NEWPID).map_err(|e| unsupported("PID namespaces", &e))?;
    let (answer, _) = crate::helper::fork_into(|_| {
        let tried = sys::mount(
            "proc",
            "/proc",
            "proc",
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            "",
        );
        match tried {
            // Failing is how this process ends; this failure means success.
            Ok(()) => Error::Invalid(String::new()),
            Err(e) => unsupported("a /proc of its own", &e).into(),
        }
    })?;
    match answer {
        Answer::Failed { pid, cause } if matches!(&*cause, Answer::Invalid(s) if s.is_empty()) => {
            Ok((Answer::Ended { pid }, Vec::new()))
        }
        other => Ok((other, Vec::new())),
    }
}

fn mounts() -> Result<()> {
    sys::mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").doing("make mounts private")?;
    let tree = sys::open_tree("/dev/null").doing("open_tree")?;
    sys::mount_set(Some(tree.as_fd()), "", sys::MOUNT_READ_ONLY, true).doing("mount_setattr")?;
    rootfs::own_executable();
    sys::mount("tmpfs", "/sys", "tmpfs", libc::MS_NOSUID, "mode=755").doing("mount tmpfs")
}

fn network() -> Result<()> {
    links::loopback_up()?;
    let mut l = Links::open()?;
    l.create_bridge("probe0", [2, 0, 0, 0, 0, 1])?;
    let bridge = links::index("probe0")?;
    let here = fs::File::open("/proc/self/ns/net")
        .map(OwnedFd::from)
        .doing("open the network namespace")?;
    let end = |name| End { name, mac: None };
    l.create_veth(&end("probe1"), Some(bridge), &end("probe2"), here.as_fd())?;
    l.add_address(
        links::index("probe2")?,
        Cidr::new(Ipv4Addr::new(192, 0, 2, 1), 24),
        true,
    )
}

fn firewall() -> Result<()> {
    let target = std::net::SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 80);
    service_nat::apply(&[NatRule {
        ip: Ipv4Addr::new(192, 0, 2, 9),
        port: 80,
        protocol: Protocol::Tcp,
        targets: vec![target, target],
        sticky: false,
    }])?;
    redirect::Redirect::default().apply()?;
    let mut t = nft::Table::replace("theater-probe");
    t.set(
        "pairs",
        SetKind::Pairs,
        &[(
            nft::pair_key(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST),
            Value::None,
        )],
    );
    t.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Machine = Machine {
        root: false,
        container: false,
        clone_forbidden: false,
        none_allowed: false,
        apparmor: false,
    };

    #[test]
    fn each_known_obstacle_has_its_own_remedy() {
        let eperm = io::Error::from_raw_os_error(libc::EPERM);
        for (machine, expected) in [
            (
                Machine {
                    container: true,
                    ..FREE
                },
                "--privileged",
            ),
            (
                Machine {
                    clone_forbidden: true,
                    ..FREE
                },
                "kernel.unprivileged_userns_clone=1",
            ),
            (
                Machine {
                    apparmor: true,
                    ..FREE
                },
                "kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                Machine {
                    none_allowed: true,
                    ..FREE
                },
                "user.max_user_namespaces=15000",
            ),
            (FREE, "run as root"),
        ] {
            let u = machine.explain("user namespaces", &eperm);
            assert!(u.remedy.contains(expected), "seen {u}, expected {expected}");
            assert!(u.what.contains("user namespaces"));
        }
    }

    #[test]
    fn a_kernel_without_the_feature_is_named_as_such() {
        let e = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        let u = FREE.explain("virtual networks", &e);
        assert!(u.remedy.contains("Linux 5.12"), "{u}");
    }
}
