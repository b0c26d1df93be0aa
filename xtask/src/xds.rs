//! Generates `crates/xds/src/gen`: Rust types, gRPC stubs and the descriptor set.
//!
//! The protos of the Envoy API come from the `envoy-types` package on crates.io, which ships them;
//! only its files are read, its code is not compiled. The few protos that it lacks (Istio's, OpenTelemetry's traces and
//! logs, gRPC's health) are our own wording and live in `crates/xds/proto`.
//!
//! Two sets of files are chosen below. Everything in [`TYPED`] becomes Rust. [`DESCRIBED`] is only
//! put into the descriptor set, so that its messages can be read and written as JSON (EnvoyFilter,
//! configuration dumps) without costing build time.

mod fields;

use anyhow::{Context, bail, ensure};
use prost::Message;
use prost_types::FileDescriptorProto;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that ships the protos.
const SOURCE: (&str, &str) = ("envoy-types", "0.7.7");

/// The directories inside the package that `import` statements start from.
const INCLUDES: &[&str] = &[
    "data-plane-api",
    "xds",
    "googleapis",
    "protoc-gen-validate",
    "cel-spec/proto",
    "client_model",
    "opentelemetry-proto",
    "ratelimit",
];

/// Path prefixes of the protos that become Rust types (with everything they import).
const TYPED: &[&str] = &[
    "envoy/admin/v3/certs.proto",
    "envoy/admin/v3/clusters.proto",
    "envoy/admin/v3/config_dump",
    "envoy/admin/v3/listeners.proto",
    "envoy/admin/v3/memory.proto",
    "envoy/admin/v3/server_info.proto",
    "envoy/config/accesslog/v3/",
    "envoy/config/bootstrap/v3/",
    "envoy/config/cluster/v3/",
    "envoy/config/core/v3/",
    "envoy/config/endpoint/v3/",
    "envoy/config/listener/v3/",
    "envoy/config/metrics/v3/",
    "envoy/config/overload/v3/",
    "envoy/config/ratelimit/v3/",
    "envoy/config/rbac/v3/",
    "envoy/config/route/v3/",
    "envoy/config/trace/v3/",
    "envoy/data/accesslog/v3/",
    "envoy/data/core/v3/",
    "envoy/extensions/access_loggers/file/",
    "envoy/extensions/access_loggers/filters/cel/",
    "envoy/extensions/access_loggers/grpc/",
    "envoy/extensions/access_loggers/open_telemetry/",
    "envoy/extensions/access_loggers/stream/",
    "envoy/extensions/bootstrap/internal_listener/",
    "envoy/extensions/clusters/aggregate/",
    "envoy/extensions/clusters/common/dns/",
    "envoy/extensions/clusters/dns/",
    "envoy/extensions/clusters/dynamic_forward_proxy/",
    "envoy/extensions/common/dynamic_forward_proxy/",
    "envoy/extensions/common/ratelimit/",
    "envoy/extensions/compression/",
    "envoy/extensions/filters/common/fault/",
    "envoy/extensions/filters/http/bandwidth_limit/",
    "envoy/extensions/filters/http/basic_auth/",
    "envoy/extensions/filters/http/buffer/",
    "envoy/extensions/filters/http/compressor/",
    "envoy/extensions/filters/http/cors/",
    "envoy/extensions/filters/http/csrf/",
    "envoy/extensions/filters/http/decompressor/",
    "envoy/extensions/filters/http/dynamic_forward_proxy/",
    "envoy/extensions/filters/http/ext_authz/",
    "envoy/extensions/filters/http/fault/",
    "envoy/extensions/filters/http/grpc_http1_bridge/",
    "envoy/extensions/filters/http/grpc_stats/",
    "envoy/extensions/filters/http/grpc_web/",
    "envoy/extensions/filters/http/header_mutation/",
    "envoy/extensions/filters/http/header_to_metadata/",
    "envoy/extensions/filters/http/health_check/",
    "envoy/extensions/filters/http/jwt_authn/",
    "envoy/extensions/filters/http/local_ratelimit/",
    "envoy/extensions/filters/http/lua/",
    "envoy/extensions/filters/http/ratelimit/",
    "envoy/extensions/filters/http/rbac/",
    "envoy/extensions/filters/http/router/",
    "envoy/extensions/filters/http/set_metadata/",
    "envoy/extensions/filters/http/stateful_session/",
    "envoy/extensions/filters/http/wasm/",
    "envoy/extensions/filters/listener/http_inspector/",
    "envoy/extensions/filters/listener/original_dst/",
    "envoy/extensions/filters/listener/original_src/",
    "envoy/extensions/filters/listener/proxy_protocol/",
    "envoy/extensions/filters/listener/tls_inspector/",
    "envoy/extensions/filters/network/connection_limit/",
    "envoy/extensions/filters/network/direct_response/",
    "envoy/extensions/filters/network/echo/",
    "envoy/extensions/filters/network/ext_authz/",
    "envoy/extensions/filters/network/http_connection_manager/",
    "envoy/extensions/filters/network/local_ratelimit/",
    "envoy/extensions/filters/network/mongo_proxy/",
    "envoy/extensions/filters/network/rbac/",
    "envoy/extensions/filters/network/sni_cluster/",
    "envoy/extensions/filters/network/sni_dynamic_forward_proxy/",
    "envoy/extensions/filters/network/tcp_proxy/",
    "envoy/extensions/formatter/metadata/",
    "envoy/extensions/formatter/req_without_query/",
    "envoy/extensions/http/early_header_mutation/header_mutation/",
    "envoy/extensions/http/header_formatters/preserve_case/",
    "envoy/extensions/http/original_ip_detection/",
    "envoy/extensions/http/stateful_session/",
    "envoy/extensions/internal_redirect/",
    "envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/",
    "envoy/extensions/load_balancing_policies/cluster_provided/",
    "envoy/extensions/load_balancing_policies/common/",
    "envoy/extensions/load_balancing_policies/least_request/",
    "envoy/extensions/load_balancing_policies/maglev/",
    "envoy/extensions/load_balancing_policies/override_host/",
    "envoy/extensions/load_balancing_policies/pick_first/",
    "envoy/extensions/load_balancing_policies/random/",
    "envoy/extensions/load_balancing_policies/ring_hash/",
    "envoy/extensions/load_balancing_policies/round_robin/",
    "envoy/extensions/load_balancing_policies/subset/",
    "envoy/extensions/load_balancing_policies/wrr_locality/",
    "envoy/extensions/matching/",
    "envoy/extensions/network/dns_resolver/cares/",
    "envoy/extensions/network/dns_resolver/getaddrinfo/",
    "envoy/extensions/path/",
    "envoy/extensions/rbac/",
    "envoy/extensions/request_id/uuid/",
    "envoy/extensions/resource_monitors/downstream_connections/",
    "envoy/extensions/resource_monitors/fixed_heap/",
    "envoy/extensions/retry/",
    "envoy/extensions/tracers/opentelemetry/",
    "envoy/extensions/transport_sockets/http_11_proxy/",
    "envoy/extensions/transport_sockets/internal_upstream/",
    "envoy/extensions/transport_sockets/proxy_protocol/",
    "envoy/extensions/transport_sockets/raw_buffer/",
    "envoy/extensions/transport_sockets/tls/v3/",
    "envoy/extensions/upstreams/http/generic/",
    "envoy/extensions/upstreams/http/http/",
    "envoy/extensions/upstreams/http/tcp/",
    "envoy/extensions/upstreams/http/v3/",
    "envoy/extensions/upstreams/tcp/",
    "envoy/service/accesslog/v3/",
    "envoy/service/auth/v3/",
    "envoy/service/discovery/v3/",
    "envoy/service/ratelimit/v3/",
    "envoy/service/secret/v3/",
    "envoy/type/http/v3/",
    "envoy/type/matcher/v3/",
    "envoy/type/metadata/v3/",
    "envoy/type/tracing/v3/",
    "envoy/type/v3/",
    "google/rpc/status.proto",
    "grpc/health/",
    "istio/",
    "opentelemetry/",
    "udpa/type/",
    "xds/core/v3/",
    "xds/type/matcher/v3/",
    "xds/type/v3/",
];

/// Path prefixes of the protos that are known by their descriptors only.
const DESCRIBED: &[&str] = &["envoy/"];

/// Imports that only annotate other protos: no Rust is generated for them.
const ANNOTATIONS: &[&str] = &[
    "envoy/annotations/",
    "google/api/annotations.proto",
    "udpa/annotations/",
    "validate/",
    "xds/annotations/",
];

/// Relative names that protox looks up in the wrong package: file, name, absolute name.
const SPELLED_OUT: &[(&str, &str, &str)] = &[(
    "envoy/extensions/clusters/dynamic_forward_proxy/v3/cluster.proto",
    " common.dynamic_forward_proxy.v3.",
    " .envoy.extensions.common.dynamic_forward_proxy.v3.",
)];

/// Generates the sources. `--protos DIR` takes the protos from a directory instead of the registry.
pub fn run(mut args: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let mut protos = None;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--protos" => {
                protos = Some(PathBuf::from(
                    args.next().context("--protos needs a directory")?,
                ))
            }
            _ => bail!("unexpected argument `{arg}`"),
        }
    }
    let protos = match protos {
        Some(dir) => dir,
        None => download()?,
    };
    let krate = crate::workspace().join("crates/xds");
    let mut includes: Vec<PathBuf> = INCLUDES.iter().map(|dir| protos.join(dir)).collect();
    includes.push(krate.join("proto"));

    let files = list_protos(&includes)?;
    let roots = |prefixes: &[&str]| -> Vec<String> {
        files
            .iter()
            .filter(|file| starts_with_any(file, prefixes))
            .cloned()
            .collect()
    };
    for prefix in TYPED.iter().chain(DESCRIBED) {
        ensure!(
            files.iter().any(|file| file.starts_with(prefix)),
            "no proto starts with {prefix}"
        );
    }
    let typed_roots = roots(TYPED);
    let mut all_roots = typed_roots.clone();
    all_roots.extend(
        roots(DESCRIBED)
            .into_iter()
            .filter(|file| !typed_roots.contains(file)),
    );
    let all = compile(&includes, &all_roots)?;

    let out = krate.join("src/gen");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    std::fs::create_dir_all(&out)?;

    let set = prost_types::FileDescriptorSet {
        file: in_order(&all, all.keys()),
    };
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;

    let typed: Vec<FileDescriptorProto> = in_order(&all, typed_roots.iter())
        .into_iter()
        .filter(|file| !starts_with_any(file.name(), ANNOTATIONS))
        .collect();
    let described = set.file.len();
    let rust = typed.len();
    generate(&out, prost_types::FileDescriptorSet { file: typed })?;
    println!(
        "{rust} protos became Rust, {described} are described, in {}",
        out.display()
    );
    Ok(())
}

fn starts_with_any(file: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| file.starts_with(prefix))
}

/// Lets cargo download the package that ships the protos; returns its `proto` directory.
fn download() -> anyhow::Result<PathBuf> {
    let (name, version) = SOURCE;
    let dir = std::env::temp_dir().join(format!("theater-xtask-xds-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("src"))?;
    std::fs::write(dir.join("src/lib.rs"), "")?;
    std::fs::write(
        dir.join("Cargo.toml"),
        format!(
            "[package]\nname = \"protos\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n{name} = \"={version}\"\n"
        ),
    )?;
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1"])
        .current_dir(&dir)
        .output()?;
    std::fs::remove_dir_all(&dir)?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == name))
        .and_then(|package| package["manifest_path"].as_str())
        .with_context(|| format!("cargo did not find {name}"))?;
    Ok(Path::new(manifest).with_file_name("proto"))
}

/// The import paths of all protos below the include directories, sorted.
fn list_protos(includes: &[PathBuf]) -> anyhow::Result<BTreeSet<String>> {
    fn walk(base: &Path, dir: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                walk(base, &path, found)?;
            } else if path
                .extension()
                .is_some_and(|extension| extension == "proto")
            {
                let name = path
                    .strip_prefix(base)?
                    .to_str()
                    .context("a path that is not UTF-8")?;
                found.insert(name.to_owned());
            }
        }
        Ok(())
    }
    let mut found = BTreeSet::new();
    for include in includes {
        walk(include, include, &mut found)?;
    }
    Ok(found)
}

/// Compiles every root by itself. protox resolves relative names against all files it has seen
/// instead of the imports of one file, so that one compiler for everything depends on the order of
/// the files and fails for this set. Where that hits even a single root, [`SPELLED_OUT`] helps.
fn compile(
    includes: &[PathBuf],
    roots: &[String],
) -> anyhow::Result<BTreeMap<String, FileDescriptorProto>> {
    let mut files = BTreeMap::new();
    let mut failed = Vec::new();
    for root in roots {
        if files.contains_key(root) {
            continue;
        }
        let mut resolver = ChainFileResolver::new();
        for include in includes {
            resolver.add(Spelled(include.clone()));
        }
        resolver.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).include_source_info(false);
        if let Err(error) = compiler.open_file(root) {
            failed.push(error.to_string());
            continue;
        }
        for file in compiler.file_descriptor_set().file {
            files.entry(file.name().to_owned()).or_insert(file);
        }
    }
    ensure!(
        failed.is_empty(),
        "{} protos do not compile:\n{}",
        failed.len(),
        failed.join("\n")
    );
    Ok(files)
}

/// Reads protos from a directory, with the names of [`SPELLED_OUT`] made absolute.
struct Spelled(PathBuf);

impl FileResolver for Spelled {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let path = self.0.join(name);
        let Ok(mut source) = std::fs::read_to_string(&path) else {
            return Err(protox::Error::file_not_found(name));
        };
        for (file, relative, absolute) in SPELLED_OUT {
            if *file == name {
                source = source.replace(relative, absolute);
            }
        }
        File::from_source(name, &source)
    }
}

/// The named files and everything they import, imports first.
fn in_order<'a>(
    files: &BTreeMap<String, FileDescriptorProto>,
    names: impl Iterator<Item = &'a String>,
) -> Vec<FileDescriptorProto> {
    fn visit(
        files: &BTreeMap<String, FileDescriptorProto>,
        name: &str,
        seen: &mut BTreeSet<String>,
        out: &mut Vec<FileDescriptorProto>,
    ) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        let file = &files[name];
        for import in &file.dependency {
            visit(files, import, seen, out);
        }
        out.push(file.clone());
    }
    let (mut seen, mut out) = (BTreeSet::new(), Vec::new());
    for name in names {
        visit(files, name, &mut seen, &mut out);
    }
    out
}

/// Rust types, gRPC clients and servers, and `_includes.rs` with the module tree.
fn generate(out: &Path, set: prost_types::FileDescriptorSet) -> anyhow::Result<()> {
    let services = tonic_prost_build::configure()
        .build_transport(false)
        .disable_comments(["."])
        .codec_path("crate::codec::WireCodec")
        .service_generator();
    prost_build::Config::new()
        .out_dir(out)
        .include_file("_includes.rs")
        .btree_map(["."])
        .bytes(["."])
        .disable_comments(["."])
        .enable_type_names()
        .service_generator(services)
        .compile_fds(set)?;
    for entry in std::fs::read_dir(out)? {
        let path = entry?.path();
        let is_include = path.file_name().is_some_and(|name| name == "_includes.rs");
        if path.extension().is_some_and(|extension| extension == "rs") && !is_include {
            let source = std::fs::read_to_string(&path)?;
            let source = fields::rewrite(&source).with_context(|| path.display().to_string())?;
            std::fs::write(&path, source)?;
        }
    }
    Ok(())
}
