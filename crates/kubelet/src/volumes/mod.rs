//! A pod's volumes: what they contain, and putting them on disk.

mod payload;
mod persistent;
mod write;

pub use payload::{
    File, Payload, TokenKey, VolumeContext, VolumeError, payload, references, token_requests,
};
pub use persistent::{attach, discard, path_of};
pub use write::{make_empty_dir, publish, remove};

use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::cri::Mount;

/// Where the volumes of pods are.
#[derive(Clone, Debug)]
pub struct VolumeDirs {
    /// For what must survive a restart of the node: emptyDir.
    pub persistent: PathBuf,
    /// For what must not reach a disk: secrets, tokens, configuration. Best a tmpfs.
    pub ephemeral: PathBuf,
    /// The node's own tree of files: where volumes are that outlive pods.
    pub disk: PathBuf,
}

impl VolumeDirs {
    /// The directory of one volume of a pod.
    pub fn volume(&self, pod: &Pod, volume: &k8s_openapi::api::core::v1::Volume) -> PathBuf {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let memory = volume
            .empty_dir
            .as_ref()
            .map(|dir| dir.medium.as_deref() == Some("Memory"));
        let base = if memory == Some(false) {
            &self.persistent
        } else {
            &self.ephemeral
        };
        base.join(uid).join(&volume.name)
    }
}

/// The mounts of a container, those inside others after them. `subPathExpr` is expanded from `environment`.
///
/// # Errors
/// A sentence about the mount that cannot be made.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    dirs: &VolumeDirs,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes
            .into_iter()
            .flatten()
            .find(|volume| volume.name == mount.name)
            .ok_or_else(|| {
                format!(
                    "container {}: volumeMounts names unknown volume {:?}",
                    container.name, mount.name
                )
            })?;
        let mut source = dirs.volume(pod, volume);
        let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(expression)) if !expression.is_empty() => {
                Some(crate::env::expand(expression, |name| {
                    environment
                        .iter()
                        .find(|(known, _)| known == name)
                        .map(|(_, value)| value.clone())
                }))
            }
            _ => None,
        };
        if let Some(sub_path) = sub_path {
            source = inside(&source, &sub_path).ok_or_else(|| {
                format!(
                    "container {}: subPath {sub_path:?} leaves volume {:?}",
                    container.name, mount.name
                )
            })?;
            if source.symlink_metadata().is_err() {
                std::fs::create_dir_all(&source).map_err(|problem| {
                    format!(
                        "container {}: subPath {sub_path:?} of volume {:?}: {problem}",
                        container.name, mount.name
                    )
                })?;
            }
            // The file as it is now: a subPath mount does not follow updates, as in Kubernetes.
            let root = dirs.volume(pod, volume).canonicalize();
            source = source
                .canonicalize()
                .map_err(|problem| problem.to_string())?;
            // A container may have put a link there.
            if !root.is_ok_and(|root| source.starts_with(root)) {
                return Err(format!(
                    "container {}: subPath {sub_path:?} leaves volume {:?}",
                    container.name, mount.name
                ));
            }
        }
        let claim = volume.persistent_volume_claim.as_ref();
        let writable =
            volume.empty_dir.is_some() || claim.is_some_and(|c| c.read_only != Some(true));
        mounts.push(Mount {
            source,
            target: mount.mount_path.clone(),
            read_only: mount.read_only == Some(true) || !writable,
        });
    }
    // A mount inside another one comes after it, whatever the order in the spec.
    mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
    make_nested_points(&mounts)
        .map_err(|problem| format!("container {}: nested mount: {problem}", container.name))?;
    Ok(mounts)
}

/// Makes the points of mounts that lie inside other mounts. It has to happen in the volumes, as they
/// are read-only in the container.
fn make_nested_points(mounts: &[Mount]) -> std::io::Result<()> {
    for mount in mounts {
        let target = Path::new(&mount.target);
        let parent = mounts
            .iter()
            .filter(|other| other.target != mount.target)
            .filter_map(|other| Some((other, target.strip_prefix(&other.target).ok()?)))
            .min_by_key(|(_, below)| below.components().count());
        let Some((parent, below)) = parent else {
            continue;
        };
        let point = parent.source.join(below);
        if point.exists() || !parent.source.is_dir() {
            continue;
        }
        if mount.source.is_dir() {
            std::fs::create_dir_all(&point)?;
        } else {
            if let Some(directory) = point.parent() {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::File::create(&point)?;
        }
    }
    Ok(())
}

/// `base/path`, unless the path is absolute or climbs out.
fn inside(base: &Path, path: &str) -> Option<PathBuf> {
    let mut out = base.to_owned();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests;
