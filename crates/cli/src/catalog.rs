//! The images every node has: all of them are this program under other names.

use std::path::Path;

use kubelet::catalog::{Image, ImageCatalog, ImageMount};

/// Where a machine's own Redis may be.
const REAL_REDIS: [&str; 3] = [
    "/usr/bin/redis-server",
    "/usr/local/bin/redis-server",
    "/usr/bin/valkey-server",
];

/// What every application image has beside its program, as small images do.
const TOOLS: [&str; 2] = ["curl", "wget"];

/// The catalogue of this program; with `envoy`, a program of this machine, also the image whose sidecar is that Envoy.
#[must_use]
pub fn images(envoy: Option<&Path>) -> ImageCatalog {
    let mut images = Vec::new();
    for name in [
        "user-service",
        "movie-service",
        "booking-service",
        "api-gateway",
    ] {
        images.push(image(&[name], &[name], &[], &[name]));
    }
    images.push(redis(real_redis()));
    images.push(image(
        &["hashicorp/http-echo", "http-echo"],
        &["http-echo"],
        &[],
        &["http-echo"],
    ));
    images.push(image(
        &["curlimages/curl", "curl"],
        &[],
        &["curl", "--help"],
        &["curl"],
    ));
    images.push(image(&["busybox", "alpine"], &[], &["sh"], &["sh"]));
    images.push(image(
        &["httpd"],
        &[],
        &["httpd-foreground"],
        &["httpd-foreground", "httpd", "ab"],
    ));
    images.push(image(
        &["nginx"],
        &[],
        &["nginx", "-g", "daemon off;"],
        &["nginx"],
    ));
    images.push(image(
        &["fortio/fortio", "fortio"],
        &["fortio"],
        &["server"],
        &["fortio"],
    ));
    images.push(image(
        &["kennethreitz/httpbin", "kong/httpbin", "httpbin"],
        &[],
        &[
            "gunicorn",
            "-b",
            "0.0.0.0:80",
            "httpbin:app",
            "-k",
            "gevent",
        ],
        &["gunicorn"],
    ));
    images.push(image(
        &["mccutchen/go-httpbin", "go-httpbin"],
        &[],
        &["go-httpbin"],
        &["go-httpbin"],
    ));
    images.push(image(
        &["istio/tcp-echo-server", "tcp-echo-server"],
        &["tcp-echo"],
        &[],
        &["tcp-echo"],
    ));
    for version in ["v1", "v2"] {
        images.push(Image {
            env: vec![("SERVICE_VERSION".to_owned(), version.to_owned())],
            ..image(
                &[
                    &format!("istio/examples-helloworld-{version}"),
                    &format!("examples-helloworld-{version}"),
                ],
                &["helloworld"],
                &[],
                &["helloworld"],
            )
        });
    }
    images.push(image(
        &["alpine/socat", "socat"],
        &["socat"],
        &[],
        &["socat"],
    ));
    images.push(image(
        &["istio/proxyv2", "proxyv2"],
        &["pilot-agent"],
        &[],
        &["pilot-agent", "istio-iptables"],
    ));
    images.push(image(
        &["istio/pilot", "pilot"],
        &["pilot-discovery"],
        &[],
        &["pilot-discovery"],
    ));
    images.extend(envoy.map(proxy_with_envoy));
    images.extend(conformance());
    ImageCatalog { images }
}

/// The agent beside an Envoy of this machine, which may need the machine's libraries.
fn proxy_with_envoy(program: &Path) -> Image {
    const INSIDE: &str = "/opt/envoy/envoy";
    Image {
        host_programs: true,
        env: vec![(agent::ENVOY_VARIABLE.to_owned(), INSIDE.to_owned())],
        mounts: vec![ImageMount {
            source: program.to_string_lossy().into_owned(),
            target: INSIDE.to_owned(),
        }],
        ..image(
            &["istio/proxyv2-envoy", "proxyv2-envoy"],
            &["pilot-agent"],
            &[],
            &["pilot-agent", "istio-iptables"],
        )
    }
}

/// Images of Kubernetes' own conformance suite.
fn conformance() -> [Image; 5] {
    [
        // A web page that says which picture it shows.
        image(
            &["nautilus"],
            &[
                "/bin/sh",
                "-c",
                "echo '{\"image\": \"nautilus.jpg\"}' > /data.json && exec /agnhost test-webserver",
            ],
            &[],
            agnhost_image::PATHS,
        ),
        image(&["jessie-dnsutils"], &["/bin/sh"], &[], &[]),
        image(
            &["agnhost"],
            &["/agnhost"],
            &["pause"],
            agnhost_image::PATHS,
        ),
        // Files of containers cannot raise privileges here, so this one says who it was started as.
        image(&["nonewprivs"], &["/nonewprivs"], &[], &["/nonewprivs"]),
        // As small as the original: nothing but its program.
        Image {
            names: vec!["pause".to_owned()],
            entrypoint: vec!["/pause".to_owned()],
            applets: vec!["/pause".to_owned()],
            size_bytes: program_size(),
            ..Image::default()
        },
    ]
}

fn image(names: &[&str], entrypoint: &[&str], cmd: &[&str], applets: &[&str]) -> Image {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Image {
        names: owned(names),
        entrypoint: owned(entrypoint),
        cmd: owned(cmd),
        applets: applets
            .iter()
            .chain(&TOOLS)
            .chain(shell_image::APPLETS)
            .map(|text| (*text).to_owned())
            .collect(),
        size_bytes: program_size(),
        ..Image::default()
    }
}

/// The store: the machine's own Redis when it has one, else the built-in server.
fn redis(real: Option<&str>) -> Image {
    match real {
        Some(program) => Image {
            host_programs: true,
            // The field's image is built without protected mode: who may connect is the network's
            // and the mesh's affair.
            ..image(
                &["redis", "valkey"],
                &[program, "--protected-mode", "no"],
                &[],
                &[],
            )
        },
        None => image(
            &["redis", "valkey"],
            &["redis-server"],
            &[],
            &["redis-server", "redis-cli"],
        ),
    }
}

fn real_redis() -> Option<&'static str> {
    REAL_REDIS
        .into_iter()
        .find(|program| Path::new(program).exists())
}

fn program_size() -> u64 {
    std::env::current_exe()
        .and_then(std::fs::metadata)
        .map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_whatever_their_registry_and_tag() {
        let images = images(None);
        for reference in [
            "harbor.example.com/theater-msa/user-service:v3",
            "theater-msa/api-gateway:latest",
            "redis:7-alpine",
            "docker.io/istio/proxyv2:1.31.0",
            "hashicorp/http-echo",
            "curlimages/curl:8.5.0",
            "httpd:alpine",
            "docker.io/library/httpd:2.4",
            "nginx:1.27",
            "registry.k8s.io/e2e-test-images/nginx:1.15-4",
            "fortio/fortio:latest_release",
            "docker.io/kennethreitz/httpbin",
            "docker.io/mccutchen/go-httpbin:v2.15.0",
            "docker.io/istio/tcp-echo-server:1.3",
            "docker.io/istio/examples-helloworld-v2:1.0",
            "alpine/socat",
            "registry.k8s.io/e2e-test-images/agnhost:2.53",
            "registry.k8s.io/e2e-test-images/busybox:1.36.1-1",
            "registry.k8s.io/pause:3.10",
            "registry.k8s.io/e2e-test-images/nautilus:1.7",
            "registry.k8s.io/e2e-test-images/jessie-dnsutils:1.7",
        ] {
            assert!(images.resolve(reference).is_some(), "{reference}");
        }
        assert!(images.resolve("mysql").is_none());
    }

    #[test]
    fn the_store_is_the_machines_own_redis_or_the_built_in_one() {
        assert_eq!(redis(None).entrypoint, ["redis-server"]);
        assert!(!redis(None).host_programs);
        let real = redis(Some("/usr/bin/redis-server"));
        assert_eq!(real.entrypoint[0], "/usr/bin/redis-server");
        assert!(real.host_programs);
    }
}
