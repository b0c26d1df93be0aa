//! Cases within a cluster: pods, services, capture by the sidecar.

use std::io::Write;
use std::net::SocketAddrV4;

use sandbox::container::{Container, User};
use sandbox::pod::PodSandbox;
use sandbox::service_nat::{self, NatRule, Protocol};
use theater_sandbox as sandbox;

use crate::agent::{Outcome, Plan, expect, get, output, run as run_in, serve, spec};

pub async fn pods(plan: Plan) -> Outcome {
    let (a, b) = (
        PodSandbox::create(plan.pod(1)).await?,
        PodSandbox::create(plan.pod(2)).await?,
    );
    let _server = serve(&a, &["serve", "80", "a"]).await?;
    let to = format!("{}:80", plan.pod_ip(1));
    expect(
        "pod to pod",
        &run_in(&b, &["get", &to]).await?,
        &format!("a from {} to none", plan.pod_ip(2)),
    )?;
    expect(
        "pod to itself by address",
        &run_in(&a, &["get", &to]).await?,
        &format!("a from {} to none", plan.pod_ip(1)),
    )?;
    expect(
        "pod to its loopback",
        &run_in(&a, &["get", "127.0.0.1:80"]).await?,
        "a from 127.0.0.1 to none",
    )?;
    expect(
        "source 127.0.0.6",
        &run_in(&a, &["get", "127.0.0.1:80", "127.0.0.6"]).await?,
        "a from 127.0.0.6 to none",
    )?;
    expect(
        "node to pod",
        &get(to.parse()?).await,
        &format!("a from {} to none", plan.node_ip()),
    )?;
    // Port-forward: a connection from inside.
    let mut stream = a.connect_inside("127.0.0.1:80".parse()?).await?;
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await?;
    expect("connect_inside", &text, "a from 127.0.0.1 to none")?;
    let twice = PodSandbox::create(plan.pod(1))
        .await
        .unwrap_err()
        .to_string();
    expect(
        "an address twice",
        &twice,
        &format!(
            "pod test/pod-1: address {} is in use by another pod of this node",
            plan.pod_ip(1)
        ),
    )?;
    // A destroyed pod's address can be used again at once.
    b.destroy().await?;
    let b = PodSandbox::create(plan.pod(2)).await?;
    expect(
        "reused address",
        &run_in(&b, &["get", &to]).await?,
        &format!("a from {} to none", plan.pod_ip(2)),
    )?;
    Ok(String::new())
}

pub async fn services(plan: Plan) -> Outcome {
    let rule = |n: u8, port: u16, protocol, targets: &[(u8, u16)]| NatRule {
        ip: plan.service_ip(n),
        port,
        protocol,
        targets: targets
            .iter()
            .map(|(pod, port)| SocketAddrV4::new(plan.pod_ip(*pod), *port))
            .collect(),
        sticky: false,
    };
    let mut pods = Vec::new();
    for n in 1..=3 {
        pods.push(PodSandbox::create(plan.pod(n)).await?);
    }
    let _servers = [
        serve(&pods[0], &["serve", "8080", "one"]).await?,
        serve(&pods[1], &["serve", "8080", "two"]).await?,
        serve(&pods[0], &["udp-serve", "53", "datagram"]).await?,
    ];
    service_nat::apply(&[
        rule(1, 80, Protocol::Tcp, &[(1, 8080)]),
        rule(2, 80, Protocol::Tcp, &[(1, 8080), (2, 8080)]),
        rule(3, 80, Protocol::Tcp, &[]),
        rule(3, 53, Protocol::Udp, &[]),
        rule(10, 53, Protocol::Udp, &[(1, 53)]),
    ])?;
    let at = |n: u8, port: u16| format!("{}:{port}", plan.service_ip(n));
    let refused = "error: Connection refused (os error 111)";
    let client = &pods[2];
    expect(
        "service from a pod",
        &run_in(client, &["get", &at(1, 80)]).await?,
        &format!("one from {} to none", plan.pod_ip(3)),
    )?;
    expect(
        "service from the endpoint itself",
        &run_in(&pods[0], &["get", &at(1, 80)]).await?,
        &format!("one from {} to none", plan.node_ip()),
    )?;
    expect(
        "service from the node",
        &get(at(1, 80).parse()?).await,
        &format!("one from {} to none", plan.node_ip()),
    )?;
    expect(
        "UDP service",
        &run_in(client, &["get", &at(10, 53), "udp"]).await?,
        "datagram",
    )?;
    expect(
        "service without endpoints from a pod",
        &run_in(client, &["get", &at(3, 80)]).await?,
        refused,
    )?;
    expect(
        "service without endpoints from the node",
        &get(at(3, 80).parse()?).await,
        refused,
    )?;
    expect(
        "UDP service without endpoints",
        &run_in(client, &["get", &at(3, 53), "udp"]).await?,
        refused,
    )?;
    expect(
        "port that a service does not have",
        &run_in(client, &["get", &at(1, 81)]).await?,
        refused,
    )?;
    expect(
        "address that no service has, from the node",
        &get(at(99, 80).parse()?).await,
        refused,
    )?;
    let mut counts = [0; 2];
    for _ in 0..100 {
        let seen = get(at(2, 80).parse()?).await;
        counts[usize::from(seen.starts_with("two"))] += 1;
    }
    // 100 fair coins: outside 20..=80 less than once in 10^8 runs.
    if !(20..=80).contains(&counts[0]) {
        return Err(format!("of 100 connections, one/two got {counts:?}").into());
    }
    service_nat::apply(&[rule(1, 80, Protocol::Tcp, &[(2, 8080)])])?;
    expect(
        "replaced endpoints",
        &run_in(client, &["get", &at(1, 80)]).await?,
        &format!("two from {} to none", plan.pod_ip(3)),
    )?;
    service_nat::clear()?;
    expect(
        "after clearing",
        &run_in(client, &["get", &at(1, 80)]).await?,
        refused,
    )?;
    Ok(String::new())
}

pub async fn redirect(plan: Plan) -> Outcome {
    let (pod, client) = (
        PodSandbox::create(plan.pod(1)).await?,
        PodSandbox::create(plan.pod(2)).await?,
    );
    let me = plan.pod_ip(1);
    let other = plan.pod_ip(2);
    let _servers = [
        serve(&pod, &["serve", "15001", "outbound"]).await?,
        serve(&pod, &["serve", "15006", "inbound"]).await?,
        serve(&pod, &["serve", "15020", "agent"]).await?,
        serve(&pod, &["serve", "15008", "tunnel"]).await?,
        serve(&pod, &["serve", "8080", "app"]).await?,
        serve(&client, &["serve", "8080", "other"]).await?,
        serve(&client, &["serve", "3306", "database"]).await?,
    ];
    let flags = "redirect -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021,15020 -o 3306 --log_output_level=default:info";
    let mut flags: Vec<_> = flags.split(' ').collect();
    flags.extend(["-x", ""]);
    expect("istio-init", &run_in(&pod, &flags).await?, "redirected")?;
    let at = |ip: std::net::Ipv4Addr, port: u16| format!("{ip}:{port}");
    let cases: &[(&str, &PodSandbox, &[&str], String)] = &[
        (
            "inbound is captured",
            &client,
            &[&at(me, 8080)],
            format!("inbound from {other} to {me}:8080"),
        ),
        (
            "excluded inbound port is not",
            &client,
            &[&at(me, 15020)],
            format!("agent from {other} to {me}:15020"),
        ),
        (
            "tunnel port is not",
            &client,
            &[&at(me, 15008)],
            format!("tunnel from {other} to {me}:15008"),
        ),
        (
            "outbound is captured",
            &pod,
            &[&at(other, 8080)],
            format!("outbound from {me} to {other}:8080"),
        ),
        (
            "excluded outbound port is not",
            &pod,
            &[&at(other, 3306)],
            format!("database from {me} to none"),
        ),
        (
            "outbound to a service that is not there",
            &pod,
            &["10.97.55.55:80"],
            format!("outbound from {me} to 10.97.55.55:80"),
        ),
        (
            "the proxy's outbound is not",
            &pod,
            &[&at(other, 8080), "mark"],
            format!("other from {me} to none"),
        ),
        (
            "application to its loopback",
            &pod,
            &["127.0.0.1:8080"],
            "app from 127.0.0.1 to 127.0.0.1:8080".into(),
        ),
        (
            "application to its own address",
            &pod,
            &[&at(me, 8080)],
            format!("app from {me} to {me}:8080"),
        ),
        (
            "proxy to the pod's own address",
            &pod,
            &[&at(me, 8080), "mark"],
            format!("inbound from {me} to {me}:8080"),
        ),
        (
            "proxy to the pod's own tunnel port",
            &pod,
            &[&at(me, 15008), "mark"],
            format!("tunnel from {me} to {me}:15008"),
        ),
        (
            "proxy from 127.0.0.6 to the application",
            &pod,
            &[&at(me, 8080), "mark", "127.0.0.6"],
            format!("app from 127.0.0.6 to {me}:8080"),
        ),
        (
            "proxy to loopback",
            &pod,
            &["127.0.0.1:8080", "mark"],
            "app from 127.0.0.1 to 127.0.0.1:8080".into(),
        ),
    ];
    for (what, pod, args, expected) in cases {
        let args: Vec<&str> = ["get"].iter().chain(*args).copied().collect();
        expect(what, &run_in(pod, &args).await?, expected)?;
    }
    if sandbox::world::uid_is_mapped(1337) {
        for (what, user) in [
            (
                "user",
                User {
                    uid: 1337,
                    gid: 0,
                    groups: vec![],
                },
            ),
            (
                "group",
                User {
                    uid: 5,
                    gid: 1337,
                    groups: vec![],
                },
            ),
        ] {
            let mut s = spec(&["get", &at(other, 8080)]);
            s.user = user;
            let (_container, stdio) = Container::start(&pod, &s).await?;
            expect(
                &format!("the proxy by its {what}"),
                &output(stdio).await?,
                &format!("other from {me} to none"),
            )?;
        }
    }
    Ok(String::new())
}

/// A pod behind a load-balancer address, and node listeners as an API server and a kubelet have.
pub async fn load_balancer(plan: Plan) -> Outcome {
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let server = serve(&pod, &["serve", "8080", &format!("{}-lb", plan.name())]).await?;
    let rule = NatRule {
        ip: plan.wan(10),
        port: 80,
        protocol: Protocol::Tcp,
        targets: vec![SocketAddrV4::new(plan.pod_ip(1), 8080)],
        sticky: false,
    };
    service_nat::apply(&[rule])?;
    for (port, name) in [(6443, "api"), (10250, "kubelet")] {
        let listener = std::net::TcpListener::bind(("0.0.0.0", port))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let peer = stream
                    .peer_addr()
                    .map(|a| a.ip().to_string())
                    .unwrap_or_default();
                let _ = write!(&stream, "{name} from {peer} to none");
            }
        });
    }
    std::mem::forget((pod, server));
    Ok(String::new())
}
