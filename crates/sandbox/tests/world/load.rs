//! Cases within a cluster: many at once, and how long things take.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use sandbox::container::{Container, ExecSpec};
use sandbox::pod::PodSandbox;
use sandbox::process::ExitStatus;
use sandbox::service_nat::{self, NatRule, Protocol};
use theater_sandbox as sandbox;

use crate::agent::{Outcome, Plan, spec};

pub async fn many(plan: Plan) -> Outcome {
    let start = Instant::now();
    let creations: Vec<_> = (1..=40)
        .map(|n| tokio::spawn(PodSandbox::create(plan.pod(n))))
        .collect();
    let mut pods = Vec::new();
    for c in creations {
        pods.push(c.await??);
    }
    let created = start.elapsed();
    let start = Instant::now();
    let mut tasks = Vec::new();
    for pod in pods {
        tasks.push(tokio::spawn(async move {
            let (c, _stdio) = Container::start(&pod, &spec(&["exit", "5"])).await?;
            let status = c.wait().await;
            pod.destroy().await?;
            Ok::<_, sandbox::Error>(status)
        }));
    }
    for t in tasks {
        if t.await?? != ExitStatus::Code(5) {
            return Err("a container did not exit with 5".into());
        }
    }
    Ok(format!(
        "40 pods in {created:.1?}; a container in each, waited for and destroyed, in {:.1?}",
        start.elapsed()
    ))
}

pub async fn timings(plan: Plan) -> Outcome {
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (mut create, mut start, mut exec, mut destroy) = (vec![], vec![], vec![], vec![]);
    for _ in 0..20 {
        let t = Instant::now();
        let pod = PodSandbox::create(plan.pod(1)).await?;
        create.push(t.elapsed());
        let t = Instant::now();
        let (c, _stdio) = Container::start(&pod, &spec(&["sleep"])).await?;
        start.push(t.elapsed());
        let t = Instant::now();
        let (p, _stdio) = c
            .exec(&ExecSpec {
                argv: ["theater", "tool", "exit", "0"].map(String::from).into(),
                ..ExecSpec::default()
            })
            .await?;
        exec.push(t.elapsed());
        p.wait().await;
        c.kill(libc::SIGKILL)?;
        c.wait().await;
        let t = Instant::now();
        pod.destroy().await?;
        destroy.push(t.elapsed());
    }
    let rules: Vec<_> = (0..200u16)
        .map(|n| NatRule {
            ip: plan.service_ip((n % 250) as u8),
            port: 80 + n,
            protocol: Protocol::Tcp,
            targets: (0..5)
                .map(|i| SocketAddrV4::new(plan.pod_ip(i), 8080))
                .collect(),
            sticky: false,
        })
        .collect();
    let mut apply = vec![];
    for _ in 0..20 {
        let t = Instant::now();
        service_nat::apply(&rules)?;
        apply.push(t.elapsed());
    }
    Ok(format!(
        "median of 20: pod create {:.1?}, container start {:.1?}, exec {:.1?}, pod destroy {:.1?}, 200 services of 5 endpoints {:.1?}",
        median(create),
        median(start),
        median(exec),
        median(destroy),
        median(apply)
    ))
}
