//! Volumes on disk.
//!
//! Files of a volume change all at once: they live in a fresh directory `..<version>`, the link
//! `..data` is moved onto it, and each visible name is a link through `..data`. A program that has
//! opened or resolved the old files keeps seeing them as a whole (the scheme of Kubernetes' own
//! atomic writer, which programs that watch `..data` rely on).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use super::payload::Payload;

const DATA: &str = "..data";

/// Makes the volume at `dir` show exactly `payload`. `version` must differ from the one before.
/// With `group` (the pod's fsGroup) files belong to that group and it may read them.
/// Returns whether anything changed.
///
/// # Errors
/// When the file system refuses.
pub fn publish(
    dir: &Path,
    payload: &Payload,
    version: u64,
    group: Option<u32>,
) -> io::Result<bool> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)?;
    if same(dir, payload) {
        return Ok(false);
    }
    let data = format!("..{version}");
    let fresh = dir.join(&data);
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)?;
        }
        fs::write(&target, &file.content)?;
        let mode = if group.is_some() {
            file.mode | 0o040 | ((file.mode & 0o200) >> 3)
        } else {
            file.mode
        };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        if let Some(group) = group {
            // In a user namespace with a single user there is no such group: everything is ours anyway.
            let _ = std::os::unix::fs::chown(&target, None, Some(group));
        }
    }
    let old = fs::read_link(dir.join(DATA)).ok();
    let next = dir.join("..data_tmp");
    let _ = fs::remove_file(&next);
    symlink(&data, &next)?;
    fs::rename(&next, dir.join(DATA))?;
    // Visible names: the first component of each path.
    let wanted: BTreeSet<&str> = payload
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for name in &wanted {
        let link = dir.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let stale = name
            .to_str()
            .is_some_and(|name| !name.starts_with("..") && !wanted.contains(name));
        if stale {
            let _ = fs::remove_file(entry.path());
        }
    }
    if let Some(old) = old.filter(|old| old.as_os_str() != data.as_str()) {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(true)
}

/// Whether the volume already shows this.
fn same(dir: &Path, payload: &Payload) -> bool {
    let data = dir.join(DATA);
    if !data.is_dir() {
        return false;
    }
    let mut count = 0;
    let mut pending = vec![data.clone()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    count == payload.len()
        && payload.iter().all(|(path, file)| {
            fs::read(data.join(path)).is_ok_and(|content| content == file.content)
        })
}

/// An empty directory that any user of the containers may write to; what is in it stays.
/// `memory`: on a tmpfs of at most `size` bytes, where mounting is allowed.
///
/// # Errors
/// When the file system refuses.
pub fn make_empty_dir(
    dir: &Path,
    memory: bool,
    size: Option<u64>,
    group: Option<u32>,
) -> io::Result<()> {
    let fresh = !dir.exists();
    fs::create_dir_all(dir)?;
    if memory && fresh {
        let options = match size {
            Some(size) => format!("mode=1777,size={size}"),
            None => "mode=1777".to_owned(),
        };
        let flags = nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV;
        let mounted = nix::mount::mount(
            Some("tmpfs"),
            dir,
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        );
        if let Err(problem) = mounted {
            // Without the right to mount it is a directory where the ephemeral volumes are.
            tracing::debug!(%problem, dir = %dir.display(), "emptyDir in memory");
        }
    }
    if fresh {
        // The sticky bit would keep one container from renaming what another one made.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777))?;
        if let Some(group) = group {
            let _ = std::os::unix::fs::chown(dir, None, Some(group));
        }
    }
    Ok(())
}

/// Removes a pod's volume directory with everything mounted in it.
pub fn remove(pod_dir: &Path) {
    for entry in fs::read_dir(pod_dir).into_iter().flatten().flatten() {
        // Only mounts answer this with success; a directory stays what it is.
        let _ = nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH);
    }
    if let Err(problem) = fs::remove_dir_all(pod_dir)
        && problem.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%problem, dir = %pod_dir.display(), "volumes of an ended pod");
    }
}
