//! Limits of memory and processor time, through control groups of either version, where the machine lets us make some.
//!
//! All groups of a node are below one directory of its own, which is made when the first one is needed. The kernel has no way to let
//! groups end with a process: what a killed supervisor leaves are empty directories. A file among the data of the node says where they are,
//! because the next start, which takes them away, may be in another group itself.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a container may use. `None` = no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes of memory, the container's file system in memory included.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_milli: Option<u64>,
    /// Thousandths of a processor that it is to get when there are not enough for all.
    pub cpu_request_milli: Option<u64>,
}

impl Resources {
    /// Whether anything is limited.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.memory_bytes.is_some() || self.cpu_milli.is_some()
    }
}

/// Length of the periods in which processor time is counted, in microseconds: what container runtimes set.
const PERIOD: u64 = 100_000;
/// The kernel refuses less per period.
const LEAST_QUOTA: u64 = 1000;

/// Where control groups are on this machine, as this process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// One hierarchy for memory and one for processor time; a machine may lack the latter.
    One {
        memory: PathBuf,
        cpu: Option<PathBuf>,
    },
    Two(PathBuf),
}

/// The groups of a node.
#[derive(Debug)]
pub struct Hierarchy {
    /// The data of the node.
    data: PathBuf,
    /// One directory per hierarchy: memory first.
    dirs: Vec<PathBuf>,
    two: bool,
    next: AtomicU64,
    /// Groups that could not be removed yet, because their last process was not gone.
    leftover: Mutex<Vec<PathBuf>>,
}

/// The file among the data of a node that names the directories of its groups, one a line.
fn record(data: &Path) -> PathBuf {
    data.join("control-groups")
}

/// The name of a node's directory of groups, from the path of its data.
fn name_for(data: &Path) -> String {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new();
    data.hash(&mut hasher);
    format!("theater-{:016x}", hasher.finish())
}

/// Where the groups of this process are, by `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn locate(mounts: &str, own: &str) -> Option<Place> {
    let path_of = |controller: &str| {
        own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let found = match controller {
                "" => controllers.is_empty(),
                c => controllers.split(',').any(|one| one == c),
            };
            found.then_some(path)
        })
    };
    let find = |controller: &str| {
        mounts.lines().find_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            let mut tail = tail.split(' ');
            let kind = tail.next()?;
            let options = tail.nth(1).unwrap_or("");
            let fits = match controller {
                "" => kind == "cgroup2",
                c => kind == "cgroup" && options.split(',').any(|o| o == c),
            };
            let mut head = head.split(' ').skip(3);
            let (root, at) = (head.next()?, head.next()?);
            let own = path_of(controller)?;
            let below = Path::new(own).strip_prefix(root).unwrap_or(Path::new(""));
            fits.then(|| Path::new(at).join(below))
        })
    };
    if let Some(memory) = find("memory") {
        let cpu = find("cpu");
        return Some(Place::One { memory, cpu });
    }
    find("").map(Place::Two)
}

fn write(path: &Path, value: &str) -> Result<(), String> {
    std::fs::write(path, value)
        .map_err(|e| format!("{} cannot be set to {value}: {e}", path.display()))
}

fn make(path: &Path) -> Result<(), String> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(format!(
            "the control group {} cannot be made: {e}",
            path.display()
        )),
        _ => Ok(()),
    }
}

/// Removes a directory of groups and what is in it, as far as nobody is in them.
fn remove_tree(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
    let _ = std::fs::remove_dir(path);
}

fn read_places() -> Result<Place, String> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
    locate(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
        .ok_or_else(|| "no control groups for memory are mounted".to_owned())
}

/// The directories that a node of this name has, or would have.
fn homes(place: &Place, name: &str) -> Vec<PathBuf> {
    match place {
        Place::One { memory, cpu } => {
            let all = std::iter::once(memory).chain(cpu.iter());
            all.map(|dir| dir.join(name)).collect()
        }
        Place::Two(own) => own.ancestors().map(|dir| dir.join(name)).collect(),
    }
}

/// Removes what the node with these data has left, once its processes have ended.
pub fn remove(data: &Path) {
    remove_at(read_places().ok().as_ref(), data);
}

fn remove_at(place: Option<&Place>, data: &Path) {
    let name = name_for(data);
    let noted = std::fs::read_to_string(record(data)).unwrap_or_default();
    // Only those that can be this node's, whatever the file says.
    let own = |dir: &PathBuf| {
        dir.is_absolute() && dir.file_name().is_some_and(|last| last == name.as_str())
    };
    let noted = noted.lines().map(PathBuf::from).filter(own);
    let here = place.map_or_else(Vec::new, |place| homes(place, &name));
    let left: Vec<PathBuf> = noted.chain(here).filter(|dir| dir.is_dir()).collect();
    left.iter().for_each(|dir| remove_tree(dir));
    if !left.iter().any(|dir| dir.exists()) {
        let _ = std::fs::remove_file(record(data));
    }
}

impl Hierarchy {
    /// Makes the directory of the node with these data, in place of one that it has left before.
    ///
    /// # Errors
    /// A sentence that says why this machine does not let us.
    pub fn create(data: &Path) -> Result<Self, String> {
        Self::create_at(&read_places()?, data)
    }

    fn create_at(place: &Place, data: &Path) -> Result<Self, String> {
        remove_at(Some(place), data);
        let homes = homes(place, &name_for(data));
        let two = matches!(place, Place::Two(_));
        let dirs = if two {
            vec![Self::home_in_two(&homes)?]
        } else {
            homes.iter().try_for_each(|dir| make(dir))?;
            homes
        };
        let lines: String = dirs
            .iter()
            .map(|dir| format!("{}\n", dir.display()))
            .collect();
        if let Err(why) = write(&record(data), &lines) {
            dirs.iter().for_each(|dir| remove_tree(dir));
            return Err(why);
        }
        Ok(Self {
            data: data.to_owned(),
            dirs,
            two,
            next: AtomicU64::new(0),
            leftover: Mutex::default(),
        })
    }

    /// The nearest place where memory can be limited below: a group with processes in it cannot have limited groups in it (except the
    /// topmost), so it may be beside our own.
    fn home_in_two(homes: &[PathBuf]) -> Result<PathBuf, String> {
        let mut problem = String::from("no control group of version 2 is ours to divide");
        for dir in homes {
            let Some(parent) = dir.parent().filter(|p| p.join("cgroup.procs").exists()) else {
                break;
            };
            // Enabled already, or to be enabled by us; whether it is shows below.
            let _ = std::fs::write(parent.join("cgroup.subtree_control"), "+memory +cpu");
            if let Err(why) = make(dir) {
                problem = why;
                continue;
            }
            if dir.join("memory.max").exists()
                && std::fs::write(dir.join("cgroup.subtree_control"), "+memory +cpu").is_ok()
            {
                return Ok(dir.clone());
            }
            let _ = std::fs::remove_dir(dir);
        }
        Err(problem)
    }

    /// Makes a group with these limits: the directories that a container's processes join. It is to be [released](Self::release).
    ///
    /// # Errors
    /// A sentence that names the file and what the kernel says.
    pub fn group(&self, resources: &Resources) -> Result<Vec<PathBuf>, String> {
        self.release(Vec::new());
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let group: Vec<PathBuf> = self
            .dirs
            .iter()
            .map(|dir| dir.join(format!("container-{n}")))
            .collect();
        let made = group.iter().try_for_each(|dir| make(dir));
        if let Err(why) = made.and_then(|()| self.limit(&group, resources)) {
            self.release(group);
            return Err(why);
        }
        Ok(group)
    }

    fn limit(&self, group: &[PathBuf], resources: &Resources) -> Result<(), String> {
        let memory = &group[0];
        let weights = resources.cpu_request_milli.map(weights);
        if self.two {
            if let Some(bytes) = resources.memory_bytes {
                write(&memory.join("memory.max"), &bytes.to_string())?;
                // Where there is swap it counts too; and a container is killed as a whole.
                let _ = std::fs::write(memory.join("memory.swap.max"), "0");
                let _ = std::fs::write(memory.join("memory.oom.group"), "1");
            }
            if let Some(milli) = resources.cpu_milli {
                write(
                    &memory.join("cpu.max"),
                    &format!("{} {PERIOD}", quota(milli)),
                )?;
            }
            if let Some((_, weight)) = weights {
                write(&memory.join("cpu.weight"), &weight.to_string())?;
            }
            return Ok(());
        }
        if let Some(bytes) = resources.memory_bytes {
            write(&memory.join("memory.limit_in_bytes"), &bytes.to_string())?;
            let _ = std::fs::write(
                memory.join("memory.memsw.limit_in_bytes"),
                bytes.to_string(),
            );
        }
        let Some(cpu) = group.get(1) else {
            return match resources.cpu_milli {
                Some(_) => Err("no control groups for processor time are mounted".into()),
                None => Ok(()),
            };
        };
        if let Some(milli) = resources.cpu_milli {
            write(&cpu.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
            write(&cpu.join("cpu.cfs_quota_us"), &quota(milli).to_string())?;
        }
        if let Some((shares, _)) = weights {
            write(&cpu.join("cpu.shares"), &shares.to_string())?;
        }
        Ok(())
    }

    /// Whether the kernel has killed something in a group for lack of memory.
    #[must_use]
    pub fn ran_out_of_memory(&self, group: &[PathBuf]) -> bool {
        let file = if self.two {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = group
            .first()
            .and_then(|dir| std::fs::read_to_string(dir.join(file)).ok());
        text.is_some_and(|text| oom_kills(&text) > 0)
    }

    /// Removes a group whose processes have ended: at once, or when the next one is made or removed.
    pub fn release(&self, group: Vec<PathBuf>) {
        if let Ok(mut leftover) = self.leftover.lock() {
            leftover.extend(group);
            leftover.retain(|dir| dir.exists() && std::fs::remove_dir(dir).is_err());
        }
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        self.dirs.iter().for_each(|dir| remove_tree(dir));
        if !self.dirs.iter().any(|dir| dir.exists()) {
            let _ = std::fs::remove_file(record(&self.data));
        }
    }
}

/// Processor time per period, of thousandths of a processor.
fn quota(milli: u64) -> u64 {
    (milli * PERIOD / 1000).max(LEAST_QUOTA)
}

/// The weight of version 1 (2 to 262144) of a request, and the same in version 2 (1 to 10000), as the kubelet computes them.
fn weights(milli: u64) -> (u64, u64) {
    let shares = (milli * 1024 / 1000).clamp(2, 262_144);
    (shares, 1 + (shares - 2) * 9999 / 262_142)
}

/// How often, by `memory.events` or `memory.oom_control`.
fn oom_kills(text: &str) -> u64 {
    let counts = text
        .lines()
        .filter_map(|line| line.strip_prefix("oom_kill "));
    counts.filter_map(|n| n.trim().parse::<u64>().ok()).sum()
}

/// Moves the calling process into groups; it must have one thread.
pub(crate) fn join(groups: &[PathBuf]) -> crate::Result<()> {
    use crate::error::Context as _;
    for group in groups {
        std::fs::write(group.join("cgroup.procs"), "0")
            .doing(format_args!("join the control group {}", group.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_below_our_own_in_both_versions() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
            33 30 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
            34 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
            35 30 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/app/x\n2:cpu,cpuacct:/\n0::/\n";
        let one = Place::One {
            memory: "/sys/fs/cgroup/memory/app/x".into(),
            cpu: Some("/sys/fs/cgroup/cpu,cpuacct/".into()),
        };
        assert_eq!(locate(mounts, own), Some(one));
        let mounts = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let two = Place::Two("/sys/fs/cgroup/user.slice/a.scope".into());
        assert_eq!(locate(mounts, "0::/user.slice/a.scope\n"), Some(two));
        // A container runtime shows its own part of the tree.
        let mounts = "30 24 0:26 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let part = Place::Two("/sys/fs/cgroup/".into());
        assert_eq!(locate(mounts, "0::/docker/1\n"), Some(part));
        assert_eq!(locate("", "0::/\n"), None);
    }

    #[test]
    fn processor_time_and_weights_are_what_a_kubelet_sets() {
        assert_eq!((quota(500), quota(2000), quota(1)), (50_000, 200_000, 1000));
        assert_eq!(weights(100), (102, 4));
        assert_eq!(weights(1000), (1024, 39));
        assert_eq!(weights(0), (2, 1));
    }

    #[test]
    fn kills_are_counted_in_the_files_of_both_versions() {
        assert_eq!(
            oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            2
        );
        assert_eq!(
            oom_kills("low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 1\n"),
            1
        );
        assert_eq!(oom_kills(""), 0);
    }

    /// A tree as the kernel's is, of plain files: of version 2, with this process in `session`, whose parent alone lets its groups be
    /// limited. Returned are the place of this process and where the groups of the node belong.
    fn tree(root: &Path, data: &Path) -> (Place, PathBuf) {
        let own = root.join("user/session");
        std::fs::create_dir_all(&own).unwrap();
        for dir in [root, &root.join("user"), &own] {
            std::fs::write(dir.join("cgroup.procs"), "").unwrap();
        }
        // The kernel would put the files of a controller into the directory that is made.
        let home = root.join("user").join(name_for(data));
        std::fs::create_dir(&home).unwrap();
        std::fs::write(home.join("memory.max"), "max").unwrap();
        (Place::Two(own), home)
    }

    fn read(file: PathBuf) -> String {
        std::fs::read_to_string(&file).unwrap_or_else(|e| format!("{}: {e}", file.display()))
    }

    #[test]
    fn in_version_2_groups_are_beside_ours_and_limited_by_its_files() {
        let world = tempfile::tempdir().unwrap();
        let data = world.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let root = world.path().join("cgroup");
        let (place, home) = tree(&root, &data);
        let groups = Hierarchy::create_at(&place, &data).unwrap();
        assert_eq!(groups.dirs, std::slice::from_ref(&home));
        let none = root.join("user/session").join(name_for(&data));
        assert!(!none.exists(), "a group with processes cannot be divided");
        for dir in [&root.join("user"), &home] {
            let enabled = read(dir.join("cgroup.subtree_control"));
            assert_eq!(enabled, "+memory +cpu", "{}", dir.display());
        }
        let wanted = Resources {
            memory_bytes: Some(64 << 20),
            cpu_milli: Some(500),
            cpu_request_milli: Some(100),
        };
        let group = groups.group(&wanted).unwrap();
        assert_eq!(group, [home.join("container-0")]);
        for (file, value) in [
            ("memory.max", "67108864"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "4"),
        ] {
            assert_eq!(read(group[0].join(file)), value, "{file}");
        }
        join(&group).unwrap();
        assert_eq!(read(group[0].join("cgroup.procs")), "0");
        assert!(!groups.ran_out_of_memory(&group));
        std::fs::write(group[0].join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        assert!(groups.ran_out_of_memory(&group));
        // The kernel removes a group although its files are there, once nobody is in it.
        groups.release(group.clone());
        assert!(group[0].exists(), "somebody is in it");
        std::fs::remove_dir_all(&group[0]).unwrap();
        std::fs::create_dir(&group[0]).unwrap();
        groups.release(Vec::new());
        assert!(!group[0].exists());
    }

    #[test]
    fn without_a_group_that_can_be_divided_the_machine_says_so() {
        let world = tempfile::tempdir().unwrap();
        let (place, home) = tree(&world.path().join("cgroup"), world.path());
        std::fs::remove_dir_all(&home).unwrap();
        let why = Hierarchy::create_at(&place, world.path()).unwrap_err();
        assert_eq!(why, "no control group of version 2 is ours to divide");
        assert!(!home.exists() && !record(world.path()).exists());
    }

    #[test]
    fn what_a_killed_node_has_left_is_removed_from_another_group_and_only_that() {
        let world = tempfile::tempdir().unwrap();
        let data = world.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let place = |session: &str| {
            let dirs = ["memory", "cpu"].map(|c| world.path().join(c).join(session));
            dirs.iter()
                .for_each(|dir| std::fs::create_dir_all(dir).unwrap());
            let [memory, cpu] = dirs;
            Place::One {
                memory,
                cpu: Some(cpu),
            }
        };
        let killed = Hierarchy::create_at(&place("a"), &data).unwrap();
        let left = killed.dirs.clone();
        for dir in &left {
            std::fs::create_dir(dir.join("container-7")).unwrap();
        }
        std::mem::forget(killed);
        let other = world.path().join("memory/a/theater-0000000000000000");
        std::fs::create_dir(&other).unwrap();
        let mut noted = read(record(&data));
        noted.push_str(&format!("{}\n", other.display()));
        std::fs::write(record(&data), noted).unwrap();
        remove_at(Some(&place("b")), &data);
        assert!(left.iter().all(|dir| !dir.exists()), "{left:?}");
        assert!(other.exists(), "another node's");
        assert!(!record(&data).exists());
    }

    #[test]
    fn nodes_have_names_of_their_own() {
        assert_eq!(name_for(Path::new("/a")), name_for(Path::new("/a")));
        assert_ne!(name_for(Path::new("/a")), name_for(Path::new("/b")));
    }
}
