use std::sync::Arc;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use parking_lot::RwLock;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn table() -> Table {
    let services = [
        json!({"metadata": {"name": "user-service", "namespace": "theater-msa"},
            "spec": {"clusterIP": "10.97.0.20", "ports": [{"name": "http", "port": 8081, "protocol": "TCP"}]}}),
        json!({"metadata": {"name": "redis", "namespace": "theater-msa"},
            "spec": {"clusterIP": "None", "ports": [{"name": "redis", "port": 6379}]}}),
        json!({"metadata": {"name": "empty", "namespace": "theater-msa"},
            "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}),
        json!({"metadata": {"name": "out", "namespace": "theater-msa"},
            "spec": {"type": "ExternalName", "externalName": "example.com"}}),
        json!({"metadata": {"name": "inner", "namespace": "theater-msa"},
            "spec": {"type": "ExternalName", "externalName": "user-service.theater-msa.svc.cluster.local"}}),
        json!({"metadata": {"name": "pending", "namespace": "theater-msa"}, "spec": {"ports": []}}),
    ];
    let slices = [json!({
        "metadata": {"namespace": "theater-msa", "labels": {"kubernetes.io/service-name": "redis"}},
        "ports": [{"name": "redis", "port": 6379, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.10.0.7"], "hostname": "redis-0", "conditions": {"ready": true}},
            {"addresses": ["10.10.0.8"], "conditions": {"ready": true}},
            {"addresses": ["10.10.0.9"], "conditions": {"ready": false}},
        ]
    })];
    Table::build("cluster.local", &services, &slices)
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let question = question(name, kind);
    let response = Message::from_vec(&answer(&table(), &question, 0, true)).unwrap();
    assert_eq!(response.metadata.id, question.metadata.id);
    assert!(response.metadata.authoritative && response.metadata.recursion_desired);
    let answers = response
        .answers
        .iter()
        .map(|record| format!("{} {}", record.record_type(), record.data))
        .collect();
    (response.metadata.response_code, answers)
}

#[test]
fn names_of_the_cluster() {
    use RecordType as T;
    let ok = ResponseCode::NoError;
    let none = ResponseCode::NXDomain;
    for (name, kind, code, answers) in [
        (
            "user-service.theater-msa.svc.cluster.local.",
            T::A,
            ok,
            vec!["A 10.97.0.20"],
        ),
        (
            "USER-service.theater-msa.svc.Cluster.Local.",
            T::A,
            ok,
            vec!["A 10.97.0.20"],
        ),
        (
            "user-service.theater-msa.svc.cluster.local.",
            T::AAAA,
            ok,
            vec![],
        ),
        (
            "user-service.theater-msa.svc.cluster.local.theater-msa.svc.cluster.local.",
            T::A,
            none,
            vec![],
        ),
        ("nobody.theater-msa.svc.cluster.local.", T::A, none, vec![]),
        (
            "nobody.theater-msa.svc.cluster.local.",
            T::AAAA,
            none,
            vec![],
        ),
        ("pending.theater-msa.svc.cluster.local.", T::A, none, vec![]),
        (
            "redis.theater-msa.svc.cluster.local.",
            T::A,
            ok,
            vec!["A 10.10.0.7", "A 10.10.0.8"],
        ),
        (
            "redis-0.redis.theater-msa.svc.cluster.local.",
            T::A,
            ok,
            vec!["A 10.10.0.7"],
        ),
        (
            "10-10-0-8.redis.theater-msa.svc.cluster.local.",
            T::A,
            ok,
            vec!["A 10.10.0.8"],
        ),
        (
            "redis-1.redis.theater-msa.svc.cluster.local.",
            T::A,
            none,
            vec![],
        ),
        ("empty.theater-msa.svc.cluster.local.", T::A, none, vec![]),
        (
            "_http._tcp.user-service.theater-msa.svc.cluster.local.",
            T::SRV,
            ok,
            vec!["SRV 0 100 8081 user-service.theater-msa.svc.cluster.local."],
        ),
        (
            "_redis._tcp.redis.theater-msa.svc.cluster.local.",
            T::SRV,
            ok,
            vec![
                "SRV 0 100 6379 redis-0.redis.theater-msa.svc.cluster.local.",
                "SRV 0 100 6379 10-10-0-8.redis.theater-msa.svc.cluster.local.",
            ],
        ),
        (
            "_redis._udp.redis.theater-msa.svc.cluster.local.",
            T::SRV,
            none,
            vec![],
        ),
        (
            "out.theater-msa.svc.cluster.local.",
            T::A,
            ok,
            vec!["CNAME example.com."],
        ),
        (
            "inner.theater-msa.svc.cluster.local.",
            T::A,
            ok,
            vec![
                "CNAME user-service.theater-msa.svc.cluster.local.",
                "A 10.97.0.20",
            ],
        ),
        (
            "10-10-0-7.theater-msa.pod.cluster.local.",
            T::A,
            ok,
            vec!["A 10.10.0.7"],
        ),
        ("x.theater-msa.pod.cluster.local.", T::A, none, vec![]),
        ("theater-msa.svc.cluster.local.", T::A, ok, vec![]),
        ("other.svc.cluster.local.", T::A, none, vec![]),
        ("svc.cluster.local.", T::A, ok, vec![]),
        (
            "20.0.97.10.in-addr.arpa.",
            T::PTR,
            ok,
            vec!["PTR user-service.theater-msa.svc.cluster.local."],
        ),
        (
            "7.0.10.10.in-addr.arpa.",
            T::PTR,
            ok,
            vec!["PTR redis-0.redis.theater-msa.svc.cluster.local."],
        ),
        ("example.com.", T::A, none, vec![]),
        ("notcluster.local.", T::A, none, vec![]),
    ] {
        let (seen_code, seen) = ask(name, kind);
        assert_eq!(seen_code, code, "{name} {kind}");
        assert_eq!(seen, answers, "{name} {kind}");
    }
}

#[test]
fn addresses_take_turns() {
    let question = question("redis.theater-msa.svc.cluster.local.", RecordType::A);
    let first = |turn| {
        let response = Message::from_vec(&answer(&table(), &question, turn, true)).unwrap();
        response.answers[0].data.to_string()
    };
    assert_eq!(
        [first(0), first(1), first(2)],
        ["10.10.0.7", "10.10.0.8", "10.10.0.7"]
    );
}

#[test]
fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
    let endpoints = (0..60)
        .map(|n| Endpoint {
            ip: std::net::Ipv4Addr::new(10, 10, 1, n),
            hostname: None,
            ports: Vec::new(),
        })
        .collect();
    let mut table = Table::new("cluster.local");
    table.insert(
        "ns",
        "many",
        Service {
            kind: ServiceKind::Headless(endpoints),
            ports: Vec::new(),
        },
    );
    let mut question = question("many.ns.svc.cluster.local.", RecordType::A);
    let parse = |bytes: Vec<u8>| Message::from_vec(&bytes).unwrap();
    let cut = parse(answer(&table, &question, 0, true));
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(parse(answer(&table, &question, 0, false)).answers.len(), 60);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    question.set_edns(edns);
    let wide = parse(answer(&table, &question, 0, true));
    assert_eq!(wide.answers.len(), 60);
    assert!(wide.edns.is_some());
}

#[test]
fn nonsense_is_refused_and_responses_are_ignored() {
    assert_eq!(parse_question(b"").unwrap_err(), None);
    assert_eq!(parse_question(&[0; 5]).unwrap_err(), None);
    let mut response = question("a.", RecordType::A).to_vec().unwrap();
    response[2] |= 0x80;
    assert_eq!(parse_question(&response).unwrap_err(), None);
    let mut broken = question("a.", RecordType::A).to_vec().unwrap();
    broken.truncate(13);
    let refusal = Message::from_vec(&parse_question(&broken).unwrap_err().unwrap()).unwrap();
    assert_eq!(refusal.metadata.response_code, ResponseCode::FormErr);
}

#[tokio::test]
async fn both_transports_answer_and_other_zones_are_forwarded() {
    let token = runtime::CancellationToken::new();
    let start = async |table: Table, forward| {
        let (udp, tcp) = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = udp.local_addr().unwrap();
        let shared: SharedTable = Arc::new(RwLock::new(Arc::new(table)));
        tokio::spawn(serve(udp, tcp, shared, forward, token.clone()));
        address
    };
    let mut outer = Table::new("example.org");
    outer.insert(
        "ns",
        "web",
        Service {
            kind: ServiceKind::ClusterIp("192.0.2.1".parse().unwrap()),
            ports: Vec::new(),
        },
    );
    let upstream = start(outer, None).await;
    let address = start(table(), Some(upstream)).await;
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.connect(address).await.unwrap();
    for (name, expected) in [
        ("user-service.theater-msa.svc.cluster.local.", "10.97.0.20"),
        ("web.ns.svc.example.org.", "192.0.2.1"),
    ] {
        let bytes = question(name, RecordType::A).to_vec().unwrap();
        udp.send(&bytes).await.unwrap();
        let mut buffer = vec![0; 1500];
        let length = udp.recv(&mut buffer).await.unwrap();
        let response = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(response.answers[0].data.to_string(), expected);

        let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        tcp.write_u16(bytes.len() as u16).await.unwrap();
        tcp.write_all(&bytes).await.unwrap();
        let length = tcp.read_u16().await.unwrap();
        let mut buffer = vec![0; usize::from(length)];
        tcp.read_exact(&mut buffer).await.unwrap();
        let response = Message::from_vec(&buffer).unwrap();
        assert_eq!(response.answers[0].data.to_string(), expected);
    }
    token.cancel();
}

#[test]
fn pods_search_their_namespace_first() {
    assert_eq!(
        resolv_conf("10.97.0.10".parse().unwrap(), "ns", "cluster.local"),
        "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.97.0.10\noptions ndots:5\n"
    );
}
