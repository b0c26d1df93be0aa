//! What Apache's image and nginx's show differently of the same thing: a server for files.

use std::path::Path;

use http::StatusCode;

/// One of the two images.
#[derive(Debug)]
pub(crate) struct Site {
    /// The program's name in messages.
    pub program: &'static str,
    /// Where the files are.
    pub documents: &'static str,
    /// The page of a fresh installation.
    pub fresh: &'static str,
    /// Header `server`.
    pub server: &'static str,
    /// Code where a directory has no page.
    pub no_index: StatusCode,
    /// Where people put configuration that the real program reads and this one does not: a file there, or a file in a
    /// directory there, keeps it from starting.
    pub configuration: &'static [&'static str],
    /// Log lines say referrer and program of the client too.
    pub combined_log: bool,
}

pub(crate) const APACHE: Site = Site {
    program: "httpd",
    documents: "/usr/local/apache2/htdocs",
    fresh: "<html><body><h1>It works!</h1></body></html>\n",
    server: "Apache/2.4 (Unix)",
    no_index: StatusCode::NOT_FOUND,
    configuration: &[],
    combined_log: false,
};

pub(crate) const NGINX: Site = Site {
    program: "nginx",
    documents: "/usr/share/nginx/html",
    fresh: "<!DOCTYPE html>\n<html>\n<head>\n<title>Welcome to nginx!</title>\n</head>\n<body>\n<h1>Welcome to nginx!</h1>\n<p>The server that is built into this cluster answers in nginx's place: it serves the files of\n/usr/share/nginx/html and reads no configuration.</p>\n</body>\n</html>\n",
    server: "nginx",
    no_index: StatusCode::FORBIDDEN,
    configuration: &[
        "/etc/nginx/nginx.conf",
        "/etc/nginx/conf.d",
        "/etc/nginx/templates",
    ],
    combined_log: true,
};

impl Site {
    /// The page of an error.
    pub fn error_page(&self, status: StatusCode, title: &str) -> String {
        let code = status.as_u16();
        if self.program == "nginx" {
            return format!(
                "<html>\r\n<head><title>{code} {title}</title></head>\r\n<body>\r\n<center><h1>{code} {title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
            );
        }
        format!(
            "<html><head>\n<title>{code} {title}</title>\n</head><body>\n<h1>{title}</h1>\n</body></html>\n"
        )
    }

    /// Whether these arguments only ask for what is done anyway: to stay in the foreground.
    pub fn takes(&self, args: &[&str]) -> bool {
        matches!(
            (self.program, args),
            (_, [])
                | ("nginx", ["-g", "daemon off;" | "daemon off"])
                | (
                    "httpd",
                    ["-D" | "-DFOREGROUND", "FOREGROUND"] | ["-DFOREGROUND"]
                )
        )
    }

    /// The first piece of configuration somebody has put where the real program looks for it.
    pub fn unread_configuration(&self) -> Option<String> {
        self.configuration.iter().find_map(|place| {
            let place = Path::new(place);
            if place.is_dir() {
                let first = std::fs::read_dir(place)
                    .ok()?
                    .flatten()
                    .find(|e| !e.path().is_dir())?;
                return Some(first.path().display().to_string());
            }
            place.exists().then(|| place.display().to_string())
        })
    }

    /// Puts the page of a fresh installation where the files are, unless somebody has put files there already.
    pub fn install(&self, documents: &Path) -> std::io::Result<()> {
        if documents.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(documents)?;
        std::fs::write(documents.join("index.html"), self.fresh)
    }
}
