//! Starting and stopping container instances.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::CancellationToken;

use super::{AttachHub, Engine, Live, PodHandle, hooks, probing};
use crate::catalog::Image;
use crate::clock::{self, Millis};
use crate::cri::{self, ContainerSpec, ExitStatus, Mount};
use crate::env::{self, EnvContext, ServiceEnv};
use crate::pod_sync::{Exit, Input, PodEvent, Role, StartFailure, roles};
use crate::volumes;

/// The least time between SIGTERM and SIGKILL once a preStop hook has used up the grace period.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// How much of a termination message is kept.
const MESSAGE_LIMIT: usize = 4096;

/// Starts an instance and reports; later reports its end.
pub(super) async fn start(
    engine: Arc<Engine>,
    handle: Arc<PodHandle>,
    name: String,
    instance: u32,
) {
    match launch(&engine, &handle, &name, instance).await {
        Ok(()) => {}
        Err(failure) => handle.tell(Input::StartFailed {
            name,
            instance,
            failure,
        }),
    }
}

async fn launch(
    engine: &Arc<Engine>,
    handle: &Arc<PodHandle>,
    name: &str,
    instance: u32,
) -> Result<(), StartFailure> {
    let config = |text: String| StartFailure::Config(text);
    let run = |text: String| StartFailure::Run(text);
    let pod = handle.pod.read().clone();
    let (role, container) = roles(&pod)
        .find(|(_, container)| container.name == name)
        .ok_or_else(|| config(format!("container {name} is not in the pod's spec")))?;
    let reference = container.image.clone().unwrap_or_default();
    let image = engine
        .catalog
        .resolve(&reference)
        .ok_or_else(|| config(engine.catalog.pull_error(&reference)))?;
    let mut spec = container_spec(engine, handle, &pod, container, image)
        .await
        .map_err(config)?;
    let message_file = termination_file(engine, handle, container, instance)
        .map_err(|problem| run(problem.to_string()))?;
    spec.mounts.push(Mount {
        source: message_file.clone(),
        target: container
            .termination_message_path
            .clone()
            .unwrap_or_else(|| "/dev/termination-log".into()),
        read_only: false,
    });
    let sandbox = handle
        .sandbox
        .read()
        .clone()
        .ok_or_else(|| run("the pod's sandbox is gone".into()))?;
    let log = engine
        .logs
        .open(&handle.uid, name, instance)
        .map_err(|problem| run(format!("cannot open the container's log: {problem}")))?;
    let id = container_id();
    engine.event(
        handle,
        PodEvent {
            warning: false,
            reason: "Created",
            message: format!("Created container: {name}"),
            container: Some(name.into()),
        },
    );
    let (process, streams) = sandbox
        .start(spec)
        .await
        .map_err(|problem| run(problem.to_string()))?;
    let live = Arc::new(Live {
        instance,
        process,
        attach: Arc::new(AttachHub::new(streams.stdin)),
        started_at: clock::now(),
        ended: CancellationToken::new(),
        stopping: CancellationToken::new(),
        stop: parking_lot::Mutex::new(None),
    });
    tracing::debug!(
        pod = handle.name,
        container = name,
        instance,
        since_pod_seen = ?handle.seen_at.elapsed(),
        "container started"
    );
    handle
        .containers
        .write()
        .insert(name.to_owned(), live.clone());
    handle.tell(Input::Started {
        name: name.to_owned(),
        instance,
        id,
    });

    let attach = live.attach.clone();
    let copying = tokio::spawn(
        log.copy(streams.stdout, streams.stderr, move |stderr, bytes| {
            attach.publish(stderr, bytes)
        }),
    );
    let fallback = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    tokio::spawn(watch_end(
        engine.clone(),
        handle.clone(),
        name.to_owned(),
        live.clone(),
        copying,
        message_file,
        fallback,
    ));
    if matches!(role, Role::Main | Role::Sidecar) {
        probing::start(engine, handle, container, &live);
        if let Some(hook) = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.clone())
        {
            tokio::spawn(hooks::post_start(
                engine.clone(),
                handle.clone(),
                container.clone(),
                live,
                hook,
            ));
        }
    }
    Ok(())
}

/// Waits for the end of an instance and reports it.
async fn watch_end(
    engine: Arc<Engine>,
    handle: Arc<PodHandle>,
    name: String,
    live: Arc<Live>,
    copying: tokio::task::JoinHandle<()>,
    message_file: std::path::PathBuf,
    fallback: bool,
) {
    let status = live.process.wait().await;
    live.stopping.cancel();
    // Its last words come before the news of its end; a process that left the container's
    // streams to somebody else cannot hold this up.
    let _ = tokio::time::timeout(Duration::from_millis(500), copying).await;
    let mut message = std::fs::read(&message_file).unwrap_or_default();
    let _ = std::fs::remove_file(&message_file);
    if message.is_empty() && fallback && status.code != 0 {
        message = log_tail(&engine, &handle, &name).await;
    }
    let start = message.len().saturating_sub(MESSAGE_LIMIT);
    let message = String::from_utf8_lossy(&message[start..]).into_owned();
    {
        let mut containers = handle.containers.write();
        if containers
            .get(&name)
            .is_some_and(|known| Arc::ptr_eq(known, &live))
        {
            containers.remove(&name);
        }
    }
    live.ended.cancel();
    let ExitStatus { code, signal, oom } = status;
    handle.tell(Input::Exited {
        name,
        instance: live.instance,
        exit: Exit {
            code,
            signal,
            oom,
            message,
        },
    });
}

async fn log_tail(engine: &Engine, handle: &PodHandle, name: &str) -> Vec<u8> {
    let options = crate::logs::ReadOptions {
        tail: Some(80),
        ..Default::default()
    };
    let mut text = Vec::new();
    if let Ok(mut chunks) = engine.logs.read(&handle.uid, &handle.name, name, options) {
        while let Some(chunk) = chunks.recv().await {
            text.extend_from_slice(&chunk);
        }
    }
    text.split_off(text.len().saturating_sub(2048))
}

fn termination_file(
    engine: &Engine,
    handle: &PodHandle,
    container: &Container,
    instance: u32,
) -> std::io::Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let dir = engine
        .dirs
        .ephemeral
        .join(&handle.uid)
        .join("..termination");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{}-{instance}", container.name));
    std::fs::write(&path, b"")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

fn container_id() -> String {
    (0..4)
        .map(|_| format!("{:016x}", rand::random::<u64>()))
        .collect()
}

/// Everything about a container that the runtime has to know.
async fn container_spec(
    engine: &Engine,
    handle: &PodHandle,
    pod: &Pod,
    container: &Container,
    image: &Image,
) -> Result<ContainerSpec, String> {
    let namespace = &handle.namespace;
    let spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
    let ip = *handle.ip.read();
    let objects = engine.objects(namespace, &env::references(container)).await;
    let services: Vec<ServiceEnv> = engine
        .stores
        .services
        .list()
        .iter()
        .filter_map(|service| ServiceEnv::from_service(service))
        .collect();
    let services = env::service_variables(
        &services,
        namespace,
        spec.enable_service_links != Some(false),
    );
    let fields = engine.fields(ip);
    let context = EnvContext {
        pod,
        fields: &fields,
        objects: &objects,
        services: &services,
        image: &image.env,
    };
    let variables = env::environment(container, &context).map_err(|problem| problem.to_string())?;
    let argv = env::argv(container, &image.entrypoint, &image.cmd, &variables);
    if argv.is_empty() {
        return Err(format!(
            "no command specified: image {:?} has no entrypoint, set command",
            container.image.as_deref().unwrap_or_default()
        ));
    }
    let mut mounts: Vec<Mount> = image
        .mounts
        .iter()
        .map(|mount| Mount {
            source: mount.source.clone().into(),
            target: mount.target.clone(),
            read_only: true,
        })
        .collect();
    mounts.extend(volumes::mounts(pod, container, &engine.dirs, &variables)?);

    let own = container.security_context.as_ref();
    let whole = spec.security_context.as_ref();
    let pick = |own: Option<i64>, whole: Option<i64>, image: u32| {
        own.or(whole)
            .and_then(|id| u32::try_from(id).ok())
            .unwrap_or(image)
    };
    let (image_uid, image_gid) = image.user.unwrap_or((0, 0));
    let uid = pick(
        own.and_then(|own| own.run_as_user),
        whole.and_then(|whole| whole.run_as_user),
        image_uid,
    );
    let gid = pick(
        own.and_then(|own| own.run_as_group),
        whole.and_then(|whole| whole.run_as_group),
        image_gid,
    );
    let non_root = own
        .and_then(|own| own.run_as_non_root)
        .or(whole.and_then(|whole| whole.run_as_non_root));
    if non_root == Some(true) && uid == 0 {
        return Err(format!(
            "container has runAsNonRoot and image will run as root (pod: \"{}_{}({})\", container: {})",
            handle.name, handle.namespace, handle.uid, container.name
        ));
    }
    let groups = whole
        .map(|whole| {
            whole
                .supplemental_groups
                .iter()
                .flatten()
                .copied()
                .chain(whole.fs_group)
                .collect::<Vec<i64>>()
        })
        .unwrap_or_default();
    let capabilities = own
        .and_then(|own| own.capabilities.clone())
        .unwrap_or_default();
    Ok(ContainerSpec {
        name: format!("{namespace}/{}/{}", handle.name, container.name),
        argv,
        env: variables,
        working_dir: container
            .working_dir
            .clone()
            .filter(|dir| !dir.is_empty())
            .unwrap_or_else(|| image.working_dir.clone()),
        applets: image.applets.clone(),
        host_programs: image.host_programs,
        hosts: hosts_file(pod, ip, &engine.config.zone),
        resolv_conf: resolv_conf(engine, pod, namespace),
        user: (
            uid,
            gid,
            groups
                .into_iter()
                .filter_map(|group| u32::try_from(group).ok())
                .collect(),
        ),
        capabilities: (
            capabilities.add.unwrap_or_default(),
            capabilities.drop.unwrap_or_default(),
        ),
        privileged: own.and_then(|own| own.privileged) == Some(true),
        read_only_root: own.and_then(|own| own.read_only_root_filesystem) == Some(true),
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        mounts,
        resources: resources(container),
    })
}

/// What a container may use.
fn resources(container: &k8s_openapi::api::core::v1::Container) -> cri::Resources {
    let of = |limits: bool, name: &str| {
        let resources = container.resources.as_ref()?;
        let all = if limits {
            &resources.limits
        } else {
            &resources.requests
        };
        all.as_ref()?.get(name)
    };
    let milli = |limits: bool| {
        let milli = crate::quantity::milli(&of(limits, "cpu")?.0)?;
        u64::try_from(milli).ok().filter(|n| *n > 0)
    };
    cri::Resources {
        memory_bytes: of(true, "memory")
            .and_then(crate::quantity::units)
            .filter(|n| *n > 0),
        cpu_milli: milli(true),
        cpu_request_milli: milli(false),
    }
}

/// The host name of a pod: `spec.hostname`, or its name, at most 63 characters.
/// Whether a pod uses the node's network.
pub(super) fn on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

pub(super) fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty())
        .or_else(|| pod.metadata.name.clone())
        .unwrap_or_default();
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

fn hosts_file(pod: &Pod, ip: Option<std::net::Ipv4Addr>, zone: &str) -> String {
    // Programs tell by the first line whose file it is.
    let whose = if on_host_network(pod) {
        "# Kubernetes-managed hosts file (host network)."
    } else {
        "# Kubernetes-managed hosts file."
    };
    let mut text =
        format!("{whose}\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if let Some(ip) = ip {
        let name = hostname(pod);
        let spec = pod.spec.as_ref();
        match spec.and_then(|spec| spec.subdomain.as_deref()) {
            Some(subdomain) if !subdomain.is_empty() => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                text.push_str(&format!(
                    "{ip}\t{name}.{subdomain}.{namespace}.svc.{zone}\t{name}\n"
                ));
            }
            _ => text.push_str(&format!("{ip}\t{name}\n")),
        }
    }
    for alias in pod
        .spec
        .iter()
        .flat_map(|spec| spec.host_aliases.iter().flatten())
    {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    text
}

fn resolv_conf(engine: &Engine, pod: &Pod, namespace: &str) -> String {
    let spec = pod.spec.as_ref();
    let dns = spec.and_then(|spec| spec.dns_config.as_ref());
    let policy = spec
        .and_then(|spec| spec.dns_policy.as_deref())
        .unwrap_or("ClusterFirst");
    let mut text = match policy {
        "None" => String::new(),
        "Default" => format!("nameserver {}\n", engine.config.dns_ip),
        _ => crate::dns::resolv_conf(engine.config.dns_ip, namespace, &engine.config.zone),
    };
    let Some(dns) = dns else { return text };
    for server in dns.nameservers.iter().flatten() {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if let Some(searches) = dns.searches.as_ref().filter(|list| !list.is_empty()) {
        let known = text
            .lines()
            .find_map(|line| line.strip_prefix("search "))
            .unwrap_or_default()
            .to_owned();
        // The last search line counts: repeat what the policy gave.
        text.push_str(&format!(
            "search {}\n",
            format!("{known} {}", searches.join(" ")).trim()
        ));
    }
    for option in dns.options.iter().flatten() {
        let name = option.name.clone().unwrap_or_default();
        match &option.value {
            Some(value) => text.push_str(&format!("options {name}:{value}\n")),
            None => text.push_str(&format!("options {name}\n")),
        }
    }
    text
}

/// Stops an instance: preStop hook, SIGTERM, and SIGKILL when the grace period is over. A later call
/// with another grace period takes the place of an earlier one.
pub(super) fn stop(
    engine: &Arc<Engine>,
    handle: &Arc<PodHandle>,
    name: &str,
    instance: u32,
    grace: Millis,
) {
    let Some(live) = handle.live(name).filter(|live| live.instance == instance) else {
        return;
    };
    live.stopping.cancel();
    let pod = handle.pod.read().clone();
    let container = roles(&pod)
        .map(|(_, container)| container)
        .find(|container| container.name == name)
        .cloned();
    let hook = container
        .as_ref()
        .and_then(|container| container.lifecycle.as_ref()?.pre_stop.clone());
    let mut current = live.stop.lock();
    let again = current.is_some();
    if let Some(earlier) = current.take() {
        earlier.abort();
    }
    let (engine, handle, target) = (engine.clone(), handle.clone(), live.clone());
    let task = tokio::spawn(async move {
        let grace = Duration::from_millis(grace);
        let begin = tokio::time::Instant::now();
        if grace > Duration::ZERO
            && !again
            && let (Some(hook), Some(container)) = (hook, container)
        {
            let run = hooks::pre_stop(&engine, &handle, &container, &target, hook);
            let _ = tokio::time::timeout(grace, run).await;
        }
        if grace > Duration::ZERO {
            target.process.kill(libc::SIGTERM);
            let left = grace
                .saturating_sub(begin.elapsed())
                .max(LEAST_GRACE.min(grace));
            tokio::select! {
                () = target.ended.cancelled() => return,
                () = tokio::time::sleep(left) => {}
            }
        }
        target.process.kill(libc::SIGKILL);
    });
    *current = Some(task.abort_handle());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_of_a_subdomain_knows_its_long_name() {
        let pod = |spec: serde_json::Value| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}),
            )
            .expect("a pod")
        };
        let ip = "10.10.0.5".parse().ok();
        let long = pod(json!({"containers": [], "hostname": "h", "subdomain": "s"}));
        assert!(
            hosts_file(&long, ip, "cluster.local")
                .contains("10.10.0.5\th.s.n.svc.cluster.local\th\n")
        );
        let host = pod(json!({"containers": [], "hostNetwork": true}));
        let text = hosts_file(&host, ip, "cluster.local");
        assert!(text.contains("10.10.0.5\tp\n"), "{text}");
        assert!(!text.starts_with("# Kubernetes-managed hosts file.\n"));
    }
}
