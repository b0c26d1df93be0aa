//! Who a container's process is: user, groups, capabilities, limits.

use std::io;

use crate::container::{Capabilities, Limits, User};
use crate::error::Context;
use crate::{Error, Result, sys};

/// Capability names in the order of their numbers.
pub(crate) const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The name as in [`NAMES`], if there is such a capability.
pub(crate) fn canonical(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().copied().find(|n| *n == short)
}

fn bits(capabilities: &Capabilities) -> Result<u64> {
    let mut set = 0;
    for name in &capabilities.0 {
        let n = canonical(name)
            .ok_or_else(|| Error::Invalid(format!("there is no capability {name:?}")))?;
        set |= 1 << NAMES.iter().position(|c| *c == n).expect("found above");
    }
    Ok(set)
}

/// Whether a number exists in a map of /proc/self/{uid,gid}_map.
pub(crate) fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line
            .split_whitespace()
            .map(|n| n.parse::<u64>().unwrap_or(0));
        let (Some(inside), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        (inside..inside + count).contains(&u64::from(id))
    })
}

/// The user as this user namespace can have it: numbers that do not exist become 0.
pub(crate) fn mapped(user: &User) -> io::Result<User> {
    let uids = std::fs::read_to_string("/proc/self/uid_map")?;
    let gids = std::fs::read_to_string("/proc/self/gid_map")?;
    Ok(User {
        uid: if is_mapped(&uids, user.uid) {
            user.uid
        } else {
            0
        },
        gid: if is_mapped(&gids, user.gid) {
            user.gid
        } else {
            0
        },
        groups: user
            .groups
            .iter()
            .copied()
            .filter(|g| is_mapped(&gids, *g))
            .collect(),
    })
}

/// Turns the current process into `user` with `capabilities` and nothing more. `user` must be mapped.
pub(crate) fn assume(user: &User, capabilities: &Capabilities, limits: &Limits) -> Result<()> {
    let wanted = bits(capabilities)?;
    if let Some(n) = limits.open_files {
        sys::set_rlimit(libc::RLIMIT_NOFILE, n).doing(format_args!("limit open files to {n}"))?;
    }
    sys::set_rlimit(libc::RLIMIT_CORE, limits.core_bytes.unwrap_or(0)).doing("limit core files")?;
    let mut wanted = wanted;
    for (number, held) in
        (0..64u32).map_while(|n| sys::bounding_capability(n).map(|held| (n, held)))
    {
        if !held {
            // A container around us may have taken it away.
            wanted &= !(1 << number);
        } else if wanted & 1 << number == 0 {
            sys::prctl(libc::PR_CAPBSET_DROP, number.into(), 0).doing("drop a capability")?;
        }
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).doing("keep capabilities over a change of user")?;
    sys::set_ids(user.uid, user.gid, &user.groups)
        .doing(format_args!("become user {} group {}", user.uid, user.gid))?;
    sys::set_capabilities(wanted).doing("set capabilities")?;
    for number in (0..64u32).filter(|n| wanted & 1 << n != 0) {
        sys::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as _,
            number.into(),
        )
        .doing("hand on a capability")?;
    }
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).doing("forbid new privileges")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_names_are_found_in_any_form() {
        for name in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert_eq!(canonical(name), Some("NET_ADMIN"));
        }
        assert_eq!(canonical("FLY"), None);
        assert_eq!(
            bits(&Capabilities(vec!["NET_ADMIN".into(), "CHOWN".into()])).unwrap(),
            1 << 12 | 1
        );
        assert!(
            bits(&Capabilities(vec!["FLY".into()]))
                .unwrap_err()
                .to_string()
                .contains("FLY")
        );
    }

    #[test]
    fn a_single_user_namespace_has_only_zero() {
        let map = "         0       1000          1\n";
        assert!(is_mapped(map, 0) && !is_mapped(map, 1337));
        let all = "         0          0 4294967295\n";
        assert!(is_mapped(all, 1337));
    }
}
