//! Access logs: lines are gathered in memory and written together, soon.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use std::time::Duration;

use dataplane::formatter::Formatter;
use dataplane::{ResponseFlags, StreamInfo};
use parking_lot::Mutex;
use tokio::sync::Notify;
use xds::envoy::config::accesslog::v3::access_log;
use xds::envoy::config::accesslog::v3::{
    AccessLog as Config, AccessLogFilter, access_log_filter::FilterSpecifier,
};
use xds::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use xds::envoy::extensions::access_loggers::stream::v3::{StderrAccessLog, StdoutAccessLog};

/// Lines are written at once when so much is waiting.
const FULL: usize = 64 * 1024;
/// How long lines are gathered under load; a lone line leaves sooner.
const GATHER: Duration = Duration::from_millis(20);

/// A file that lines go to.
pub struct Sink {
    buffer: Mutex<String>,
    file: Mutex<File>,
    waiting: Notify,
    null: bool,
}

impl Sink {
    fn open(path: &str) -> std::io::Result<Self> {
        // The process's own streams: opening them anew would start at their beginning if they are files.
        let file = match path {
            // SAFETY: the descriptors are open for the life of the process and duplicated, so dropping is harmless.
            "/dev/stdout" => unsafe { File::from_raw_fd(libc::dup(1)) },
            // SAFETY: as above.
            "/dev/stderr" => unsafe { File::from_raw_fd(libc::dup(2)) },
            path => File::options().create(true).append(true).open(path)?,
        };
        Ok(Self {
            buffer: Mutex::default(),
            file: Mutex::new(file),
            waiting: Notify::new(),
            null: path == "/dev/null",
        })
    }

    fn line(&self, write: impl FnOnce(&mut String)) {
        let full = {
            let mut buffer = self.buffer.lock();
            let first = buffer.is_empty();
            write(&mut buffer);
            if first {
                self.waiting.notify_one();
            }
            buffer.len() >= FULL
        };
        if full {
            self.flush();
        }
    }

    /// Writes what is waiting.
    pub fn flush(&self) {
        // The file first: lines of two flushes must not change places.
        let mut file = self.file.lock();
        let text = std::mem::take(&mut *self.buffer.lock());
        if !text.is_empty() && !self.null {
            // A reader that went away must not stop traffic.
            let _ = file.write_all(text.as_bytes());
        }
    }
}

/// All files that lines go to. One per path, whoever logs to it.
#[derive(Default)]
pub struct Sinks {
    sinks: Mutex<HashMap<String, Arc<Sink>>>,
}

impl Sinks {
    /// The sink of a path; must be called inside of a runtime, which then flushes it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn get(&self, path: &str) -> std::io::Result<Arc<Sink>> {
        let mut sinks = self.sinks.lock();
        if let Some(sink) = sinks.get(path) {
            return Ok(sink.clone());
        }
        let sink = Arc::new(Sink::open(path)?);
        sinks.insert(path.to_owned(), sink.clone());
        let flushed = Arc::downgrade(&sink);
        tokio::spawn(async move {
            while let Some(sink) = flushed.upgrade() {
                sink.waiting.notified().await;
                tokio::time::sleep(GATHER).await;
                sink.flush();
            }
        });
        Ok(sink)
    }

    /// Writes everything that is waiting.
    pub fn flush(&self) {
        for sink in self.sinks.lock().values() {
            sink.flush();
        }
    }
}

/// One access log of a listener, connection manager or TCP proxy.
pub struct AccessLog {
    sink: Arc<Sink>,
    formatter: Formatter,
    filter: Option<Filter>,
}

/// Which streams a log or a local reply rule is for. `op` is Envoy's: EQ 0, GE 1, LE 2, NE 3.
#[allow(missing_docs)]
pub enum Filter {
    /// With any of these flags; with any flag at all when there are none.
    Flags(Vec<ResponseFlags>),
    /// By status.
    Status {
        op: i32,
        value: u64,
    },
    Duration {
        op: i32,
        value: u64,
    },
    And(Vec<Filter>),
    Or(Vec<Filter>),
    NotHealthCheck,
}

impl AccessLog {
    /// Compiles access log messages.
    ///
    /// # Errors
    /// When a format or a filter is wrong, a file cannot be opened, or a logger is none of those that write lines.
    pub fn compile(configs: &[Config], sinks: &Sinks) -> Result<Vec<Self>, String> {
        let mut logs = Vec::new();
        for config in configs {
            let Some(access_log::ConfigType::TypedConfig(any)) = &config.config_type else {
                return Err(format!("access_log {:?} has no typed_config", config.name));
            };
            let text =
                |error: &dyn std::fmt::Display| format!("access_log {:?}: {error}", config.name);
            let (path, formatter) = if let Some(file) =
                xds::any::unpack::<FileAccessLog>(any).map_err(|error| text(&error))?
            {
                let formatter = Formatter::of_file_log(&file).map_err(|error| text(&error))?;
                (file.path, formatter)
            } else if let Some(log) =
                xds::any::unpack::<StdoutAccessLog>(any).map_err(|error| text(&error))?
            {
                ("/dev/stdout".to_owned(), stream_format(log.access_log_format.map(|format| {
                    use xds::envoy::extensions::access_loggers::stream::v3::stdout_access_log::AccessLogFormat::LogFormat;
                    let LogFormat(format) = format;
                    format
                })).map_err(|error| text(&error))?)
            } else if let Some(log) =
                xds::any::unpack::<StderrAccessLog>(any).map_err(|error| text(&error))?
            {
                ("/dev/stderr".to_owned(), stream_format(log.access_log_format.map(|format| {
                    use xds::envoy::extensions::access_loggers::stream::v3::stderr_access_log::AccessLogFormat::LogFormat;
                    let LogFormat(format) = format;
                    format
                })).map_err(|error| text(&error))?)
            } else {
                return Err(text(&format!(
                    "{} is not supported; log to a file, stdout or stderr",
                    xds::any::message_name(any)
                )));
            };
            let filter = config.filter.as_ref().map(Filter::compile);
            let filter = filter.transpose().map_err(|error| text(&error))?;
            let sink = sinks
                .get(&path)
                .map_err(|error| format!("access_log: cannot open {path}: {error}"))?;
            logs.push(Self {
                sink,
                formatter,
                filter,
            });
        }
        Ok(logs)
    }

    /// Logs a stream, if the filter lets it.
    pub fn log(&self, info: &StreamInfo<'_>) {
        if self.sink.null
            || self
                .filter
                .as_ref()
                .is_some_and(|filter| !filter.passes(info))
        {
            return;
        }
        self.sink.line(|out| self.formatter.format(info, out));
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

impl Filter {
    /// Compiles a filter.
    ///
    /// # Errors
    /// When there is no such filter here.
    pub fn compile(config: &AccessLogFilter) -> Result<Self, String> {
        Ok(match &config.filter_specifier {
            Some(FilterSpecifier::ResponseFlagFilter(filter)) => Self::Flags(
                filter
                    .flags
                    .iter()
                    .filter_map(|flag| ResponseFlags::from_short(flag))
                    .collect(),
            ),
            Some(FilterSpecifier::StatusCodeFilter(filter)) => {
                let comparison = filter.comparison.clone().unwrap_or_default();
                let value = comparison
                    .value
                    .map_or(0, |value| u64::from(value.default_value));
                Self::Status {
                    op: comparison.op,
                    value,
                }
            }
            Some(FilterSpecifier::DurationFilter(filter)) => {
                let comparison = filter.comparison.clone().unwrap_or_default();
                let value = comparison
                    .value
                    .map_or(0, |value| u64::from(value.default_value));
                Self::Duration {
                    op: comparison.op,
                    value,
                }
            }
            Some(FilterSpecifier::AndFilter(and)) => Self::And(
                and.filters
                    .iter()
                    .map(Self::compile)
                    .collect::<Result<_, _>>()?,
            ),
            Some(FilterSpecifier::OrFilter(or)) => Self::Or(
                or.filters
                    .iter()
                    .map(Self::compile)
                    .collect::<Result<_, _>>()?,
            ),
            Some(FilterSpecifier::NotHealthCheckFilter(_)) => Self::NotHealthCheck,
            _ => return Err("this kind of filter is not supported".into()),
        })
    }

    /// Whether a stream passes.
    pub fn passes(&self, info: &StreamInfo<'_>) -> bool {
        // Envoy's enumeration: EQ 0, GE 1, LE 2, NE 3.
        let compare = |op: i32, have: u64, value: u64| match op {
            1 => have >= value,
            2 => have <= value,
            3 => have != value,
            _ => have == value,
        };
        match self {
            Self::Flags(flags) => {
                if flags.is_empty() {
                    !info.flags.is_empty()
                } else {
                    flags.iter().any(|flag| info.flags.contains(*flag))
                }
            }
            Self::Status { op, value } => {
                compare(*op, info.response_code.map_or(0, u64::from), *value)
            }
            Self::Duration { op, value } => compare(
                *op,
                info.duration
                    .map_or(0, |duration| duration.as_millis() as u64),
                *value,
            ),
            Self::And(filters) => filters.iter().all(|filter| filter.passes(info)),
            Self::Or(filters) => filters.iter().any(|filter| filter.passes(info)),
            Self::NotHealthCheck => true,
        }
    }
}
