//! Access logs: lines in files, entries for services.

pub mod cel;
mod entry;
mod file;
mod filter;
mod otlp;
mod service;

use std::rc::Rc;
use std::sync::Arc;

use dataplane::StreamInfo;
use dataplane::formatter::Formatter;
use xds::Wire as _;
use xds::envoy::config::accesslog::v3::AccessLog as Config;
use xds::envoy::config::accesslog::v3::access_log;
use xds::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use xds::envoy::extensions::access_loggers::grpc::v3::{
    HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use xds::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use xds::envoy::extensions::access_loggers::stream::v3::{StderrAccessLog, StdoutAccessLog};
use xds::prost_types::Any;

pub use file::Sinks;
pub use filter::Filter;
pub use xds::envoy::data::accesslog::v3::AccessLogType as Moment;

use crate::config::Shared;
use crate::worker::Worker;
use file::Sink;
use service::Service;

/// One access log of a listener, connection manager or TCP proxy.
pub struct AccessLog {
    to: Target,
    filter: Option<Filter>,
}

enum Target {
    File(Arc<Sink>, Formatter),
    Http(Arc<Service>, entry::Headers),
    Tcp(Arc<Service>),
    OpenTelemetry(Arc<Service>, Box<otlp::Record>),
}

impl AccessLog {
    /// Compiles access log messages.
    ///
    /// # Errors
    /// When a format or a filter is wrong, a file cannot be opened, or there is no such logger here.
    pub fn compile(configs: &[Config], shared: &Shared) -> Result<Vec<Self>, String> {
        let one = |config: &Config| {
            let Some(access_log::ConfigType::TypedConfig(any)) = &config.config_type else {
                return Err("has no typed_config".to_owned());
            };
            let filter = config.filter.as_ref().map(Filter::compile);
            Ok(Self {
                to: Target::compile(any, shared)?,
                filter: filter.transpose()?,
            })
        };
        let named = |config: &Config| {
            one(config).map_err(|error| format!("access_log {:?}: {error}", config.name))
        };
        configs.iter().map(named).collect()
    }

    /// Logs a stream, if the filter lets it.
    pub fn log(
        &self,
        moment: Moment,
        info: &StreamInfo<'_>,
        worker: &Rc<Worker>,
        shared: &Arc<Shared>,
    ) {
        if matches!(&self.to, Target::File(sink, _) if sink.null) {
            return;
        }
        if let Some(filter) = &self.filter
            && !filter.passes(moment, info, &mut || worker.random())
        {
            return;
        }
        match &self.to {
            Target::File(sink, formatter) => sink.line(|out| formatter.format(info, out)),
            Target::Http(service, headers) => {
                service.take(
                    &entry::http(moment, info, headers).to_wire(),
                    worker,
                    shared,
                );
            }
            Target::Tcp(service) => {
                service.take(
                    &entry::tcp(moment, info, worker.uuid()).to_wire(),
                    worker,
                    shared,
                );
            }
            Target::OpenTelemetry(service, record) => {
                service.take(&record.of(info).to_wire(), worker, shared);
            }
        }
    }
}

impl Target {
    fn compile(any: &Any, shared: &Shared) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let file = |path: &str, formatter: Result<Formatter, dataplane::ConfigError>| {
            let sink = shared.sinks.get(path);
            Ok(Self::File(
                sink.map_err(|error| format!("cannot open {path}: {error}"))?,
                formatter.map_err(|error| text(&error))?,
            ))
        };
        fn unpack<M: xds::Wire>(any: &Any) -> Result<M, String> {
            let message = xds::any::unpack::<M>(any).map_err(|error| error.to_string())?;
            Ok(message.unwrap_or_default())
        }
        match xds::any::message_name(any) {
            "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
                let log: FileAccessLog = unpack(any)?;
                file(&log.path, Formatter::of_file_log(&log))
            }
            "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
                use xds::envoy::extensions::access_loggers::stream::v3::stdout_access_log::AccessLogFormat::LogFormat;
                let log: StdoutAccessLog = unpack(any)?;
                let format = log.access_log_format.map(|LogFormat(format)| format);
                file("/dev/stdout", stream_format(format))
            }
            "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
                use xds::envoy::extensions::access_loggers::stream::v3::stderr_access_log::AccessLogFormat::LogFormat;
                let log: StderrAccessLog = unpack(any)?;
                let format = log.access_log_format.map(|LogFormat(format)| format);
                file("/dev/stderr", stream_format(format))
            }
            "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig" => {
                let log: HttpGrpcAccessLogConfig = unpack(any)?;
                let service = Service::grpc(log.common_config.as_ref(), true, shared)?;
                Ok(Self::Http(service, entry::Headers::compile(&log)?))
            }
            "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig" => {
                let log: TcpGrpcAccessLogConfig = unpack(any)?;
                Ok(Self::Tcp(Service::grpc(
                    log.common_config.as_ref(),
                    false,
                    shared,
                )?))
            }
            "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig" => {
                let log: OpenTelemetryAccessLogConfig = unpack(any)?;
                let record = otlp::Record::compile(&log)?;
                Ok(Self::OpenTelemetry(
                    Service::open_telemetry(&log, shared)?,
                    Box::new(record),
                ))
            }
            other => Err(format!(
                "{other} is not supported; log to a file, stdout, stderr, or a service over gRPC or OpenTelemetry"
            )),
        }
    }
}

fn stream_format(
    format: Option<xds::envoy::config::core::v3::SubstitutionFormatString>,
) -> Result<Formatter, dataplane::ConfigError> {
    match format {
        Some(format) => Formatter::compile(&format),
        None => Formatter::of_file_log(&FileAccessLog::default()),
    }
}
