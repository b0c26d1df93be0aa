//! The images this node has: all of them are built in, none is ever pulled.

/// The images of a node. Filled by the program that links the images in.
#[derive(Clone, Debug, Default)]
pub struct ImageCatalog {
    /// Every built-in image.
    pub images: Vec<Image>,
}

/// One built-in image: what an OCI image configuration says, plus what its root file system holds.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Repository names by their last path segment(s), lower case: `["redis"]`,
    /// `["istio/proxyv2", "proxyv2"]`. A reference matches whatever its registry, tag and digest.
    pub names: Vec<String>,
    /// ENTRYPOINT; replaced by a container's `command`.
    pub entrypoint: Vec<String>,
    /// CMD; replaced by a container's `args`, dropped when `command` is given without `args`.
    pub cmd: Vec<String>,
    /// Environment of the image; the container's own variables win.
    pub env: Vec<(String, String)>,
    /// WORKDIR; empty means `/`.
    pub working_dir: String,
    /// User and group of the image (`None`: 0:0).
    pub user: Option<(u32, u32)>,
    /// Names of built-in programs that appear in `/bin` of a container of this image.
    pub applets: Vec<String>,
    /// Whether the host's own `/usr`, `/lib`, `/lib64` and `/sbin` are visible, read-only (for an image
    /// that runs a program of the host, such as a real redis-server).
    pub host_programs: bool,
    /// Files and directories of the host that belong to the image.
    pub mounts: Vec<ImageMount>,
    /// Size shown in the node's image list, in bytes.
    pub size_bytes: u64,
}

/// A part of an image that comes from the host's file system, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMount {
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub target: String,
}

impl Image {
    /// A pseudo digest that is stable for this image: `theater://<name>@sha256:…` needs one
    /// because tools print `imageID` and compare it.
    pub fn id(&self) -> String {
        let name = self.names.first().map_or("", String::as_str);
        let mut hex = String::with_capacity(64);
        // FNV-1a over the name with four different seeds: an identity, not a checksum.
        for seed in 0..4u64 {
            let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for byte in name.bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            hex.push_str(&format!("{hash:016x}"));
        }
        format!("theater.local/{name}@sha256:{hex}")
    }
}

/// The repository of an image reference, lower case, without registry tag or digest:
/// `Harbor.x:5000/theater-msa/user-service:v9@sha256:…` → `harbor.x:5000/theater-msa/user-service`.
pub fn repository(reference: &str) -> String {
    let without_digest = reference.split('@').next().unwrap_or_default();
    let last_slash = without_digest.rfind('/').map_or(0, |at| at + 1);
    // A colon before the last slash belongs to the registry's port.
    let end = without_digest[last_slash..]
        .find(':')
        .map_or(without_digest.len(), |at| last_slash + at);
    without_digest[..end].to_ascii_lowercase()
}

impl ImageCatalog {
    /// The image a reference names, by the last segments of its repository; the longest matching
    /// name wins (`istio/proxyv2` before `proxyv2`).
    pub fn resolve(&self, reference: &str) -> Option<&Image> {
        let repository = repository(reference);
        let mut best: Option<(usize, &Image)> = None;
        for image in &self.images {
            for name in &image.names {
                let matches = repository == *name
                    || repository
                        .strip_suffix(name.as_str())
                        .is_some_and(|rest| rest.ends_with('/'));
                if matches && best.is_none_or(|(length, _)| name.len() > length) {
                    best = Some((name.len(), image));
                }
            }
        }
        best.map(|(_, image)| image)
    }

    /// The names of all built-in images, sorted, for messages.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .images
            .iter()
            .filter_map(|image| image.names.first().map(String::as_str))
            .collect();
        names.sort_unstable();
        names
    }

    /// Why `reference` cannot be pulled, and what can be used instead.
    pub fn pull_error(&self, reference: &str) -> String {
        format!(
            "image {reference:?} is not built in and this cluster pulls nothing; built-in images: {}",
            self.names().join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> ImageCatalog {
        let image = |names: &[&str]| Image {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Image::default()
        };
        ImageCatalog {
            images: vec![
                image(&["user-service"]),
                image(&["redis"]),
                image(&["istio/proxyv2", "proxyv2"]),
                image(&["hashicorp/http-echo"]),
            ],
        }
    }

    #[test]
    fn registry_project_tag_and_digest_do_not_matter() {
        let catalog = catalog();
        for reference in [
            "user-service",
            "user-service:latest",
            "harbor.x/theater-msa/user-service:v9",
            "harbor.x:5000/theater-msa/user-service",
            "Harbor.X/theater-msa/user-service@sha256:0123",
        ] {
            let found = catalog.resolve(reference);
            assert_eq!(
                found.map(|image| image.names[0].as_str()),
                Some("user-service"),
                "{reference}"
            );
        }
        assert_eq!(
            catalog
                .resolve("docker.io/istio/proxyv2:1.26.0")
                .unwrap()
                .names[0],
            "istio/proxyv2"
        );
    }

    #[test]
    fn other_names_are_unknown_and_the_message_lists_what_exists() {
        let catalog = catalog();
        for reference in ["super-user-service", "http-echo", "nginx:1.27", "", "x/"] {
            assert!(catalog.resolve(reference).is_none(), "{reference}");
        }
        let message = catalog.pull_error("nginx:1.27");
        assert!(
            message.contains("nginx:1.27") && message.contains("redis, user-service"),
            "{message}"
        );
    }
}
