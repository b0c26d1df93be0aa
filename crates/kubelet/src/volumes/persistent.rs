//! Volumes that outlive pods: directories of the node's own tree of files.
//!
//! The node has a disk of its own, a directory of its state. Paths of `hostPath` and `local` volumes are paths on that disk,
//! never of the machine, and no link leads out of it.

use std::io;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::make_empty_dir;

/// Where on the node a bound claim's volume is.
///
/// # Errors
/// A sentence: claim and volume have not found each other, or the volume is of a type that is not mounted here.
pub fn path_of<'a>(claim: &Value, volume: &'a Value) -> Result<&'a str, String> {
    let name = |object: &Value| {
        object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    if claim["status"]["phase"] != "Bound" {
        return Err(format!("claim {} is not bound", name(claim)));
    }
    let (reference, metadata) = (&volume["spec"]["claimRef"], &claim["metadata"]);
    if !["namespace", "name", "uid"]
        .iter()
        .all(|field| reference[field] == metadata[field])
    {
        return Err(format!(
            "volume {} is not bound to claim {}",
            name(volume),
            name(claim)
        ));
    }
    let spec = &volume["spec"];
    if spec["volumeMode"] == "Block" {
        return Err(format!(
            "volume {} is a block device, which this node does not offer",
            name(volume)
        ));
    }
    let host_path = &spec["hostPath"];
    if let Some(kind) = host_path["type"]
        .as_str()
        .filter(|kind| !matches!(*kind, "" | "Directory" | "DirectoryOrCreate"))
    {
        return Err(format!(
            "volume {}: hostPath type {kind} is not offered on this node",
            name(volume)
        ));
    }
    host_path["path"]
        .as_str()
        .or(spec["local"]["path"].as_str())
        .ok_or_else(|| {
            format!(
                "volume {} is of a type that this node does not mount; hostPath and local are",
                name(volume)
            )
        })
}

/// The place of a node's path on its disk; `None` when it climbs out.
fn place(disk: &Path, path: &str) -> Option<PathBuf> {
    let mut out = disk.to_owned();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::RootDir | Component::CurDir => {}
            _ => return None,
        }
    }
    Some(out)
}

/// Makes the directory of a volume, if it is not there, and `link` a link to it: where a pod's volumes are looked for.
///
/// # Errors
/// When the path leads out of the disk, or the file system refuses.
pub fn attach(disk: &Path, path: &str, link: &Path, group: Option<u32>) -> io::Result<()> {
    let outside = || {
        io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{path} leads out of the node's disk"),
        )
    };
    let directory = place(disk, path).ok_or_else(outside)?;
    std::fs::create_dir_all(disk)?;
    let disk = disk.canonicalize()?;
    // What is there already must not lead elsewhere, before anything is made in it.
    let there = directory
        .ancestors()
        .find(|at| at.symlink_metadata().is_ok());
    if let Some(there) = there
        && !there.canonicalize()?.starts_with(&disk)
    {
        return Err(outside());
    }
    make_empty_dir(&directory, false, None, group)?;
    let directory = directory.canonicalize()?;
    if !directory.starts_with(&disk) {
        return Err(outside());
    }
    if std::fs::read_link(link).is_ok_and(|known| known == directory) {
        return Ok(());
    }
    if let Some(parent) = link.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let _ = std::fs::remove_file(link);
    std::os::unix::fs::symlink(&directory, link)
}

/// Removes the directory of a volume with everything in it; one that is not there is fine.
///
/// # Errors
/// When the path leads out of the disk, or the file system refuses.
pub fn discard(disk: &Path, path: &str) -> io::Result<()> {
    let Some(directory) = place(disk, path) else {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{path} leads out of the node's disk"),
        ));
    };
    let parent_is_ours = directory
        .parent()
        .and_then(|parent| parent.canonicalize().ok())
        .zip(disk.canonicalize().ok())
        .is_some_and(|(parent, disk)| parent.starts_with(disk));
    if !parent_is_ours {
        return Ok(());
    }
    match std::fs::remove_dir_all(&directory) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => Err(problem),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_is_a_directory_on_the_nodes_disk_and_keeps_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, link) = (dir.path().join("disk"), dir.path().join("mem/u1/data"));
        attach(&disk, "/mnt/data", &link, None).unwrap();
        std::fs::write(link.join("a"), "1").unwrap();
        assert_eq!(
            std::fs::read_to_string(disk.join("mnt/data/a")).unwrap(),
            "1"
        );
        // A pod's volumes are removed; what the link leads to stays.
        crate::volumes::remove(&dir.path().join("mem/u1"));
        attach(&disk, "/mnt/data", &link, None).unwrap();
        assert_eq!(std::fs::read_to_string(link.join("a")).unwrap(), "1");
        discard(&disk, "/mnt/data").unwrap();
        assert!(!disk.join("mnt/data").exists());
        discard(&disk, "/mnt/data").unwrap();
    }

    #[test]
    fn nothing_leads_out_of_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, link) = (dir.path().join("disk"), dir.path().join("link"));
        assert!(attach(&disk, "/a/../../x", &link, None).is_err());
        attach(&disk, "/a", &link, None).unwrap();
        std::os::unix::fs::symlink(dir.path(), disk.join("a/out")).unwrap();
        assert!(attach(&disk, "/a/out/x", &link, None).is_err());
        assert!(!dir.path().join("x").exists());
        std::fs::create_dir(dir.path().join("y")).unwrap();
        discard(&disk, "/a/out/y").unwrap();
        assert!(dir.path().join("y").exists());
    }

    #[test]
    fn only_bound_directories_are_mounted() {
        let claim = |phase: &str| json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "status": {"phase": phase}});
        let volume = |source: &str| json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}, source: {"path": "/d"}}});
        assert_eq!(path_of(&claim("Bound"), &volume("hostPath")), Ok("/d"));
        assert_eq!(path_of(&claim("Bound"), &volume("local")), Ok("/d"));
        assert!(path_of(&claim("Pending"), &volume("local")).is_err());
        assert!(
            path_of(&claim("Bound"), &volume("nfs"))
                .unwrap_err()
                .contains("does not mount")
        );
        let other = json!({"metadata": {"name": "c", "namespace": "n", "uid": "other"}, "status": {"phase": "Bound"}});
        assert!(path_of(&other, &volume("local")).is_err());
    }
}
