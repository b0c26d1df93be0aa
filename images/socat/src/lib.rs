//! The image `alpine/socat`: connects two addresses. Of socat's address types those that courses use: `TCP`,
//! `TCP-LISTEN` with `fork` and `reuseaddr`, `STDIO`, `-`. Everything else is refused, never ignored.

mod address;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use address::Address;

type Ends = (
    Box<dyn AsyncRead + Send + Unpin>,
    Box<dyn AsyncWrite + Send + Unpin>,
);

/// Runs `socat ARGS…`; `args` are without the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    if matches!(args.first().map(String::as_str), Some("-V")) {
        println!(
            "socat of Theater {}: TCP, TCP-LISTEN, STDIO",
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::SUCCESS;
    }
    let carried = parse(&args).and_then(|(verbosity, first, second)| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(carry(verbosity, first, second))
    });
    match carried {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("socat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How much is said, and the two addresses.
fn parse(args: &[String]) -> Result<(usize, Address, Address)> {
    let mut verbosity = 0;
    let mut addresses = Vec::new();
    for arg in args {
        match arg.as_str() {
            "-d" => verbosity += 1,
            "-dd" => verbosity += 2,
            option if option.len() > 1 && option.starts_with('-') => {
                bail!("unknown option \"{option}\"; -d, -dd and -V are known")
            }
            address => addresses.push(address.parse::<Address>()?),
        }
    }
    let [first, second] = <[Address; 2]>::try_from(addresses).map_err(|given| {
        anyhow::anyhow!("exactly 2 addresses required (there are {})", given.len())
    })?;
    if matches!(second, Address::Listen { .. }) {
        bail!("TCP-LISTEN is understood as the first address only");
    }
    Ok((verbosity, first, second))
}

async fn carry(verbosity: usize, first: Address, second: Address) -> Result<()> {
    let Address::Listen { port, fork } = first else {
        return join(open(&first).await?, open(&second).await?).await;
    };
    let listener = TcpListener::bind(("0.0.0.0", port))
        .await
        .with_context(|| format!("cannot listen on port {port}"))?;
    if verbosity > 1 {
        eprintln!("listening on {}", listener.local_addr()?);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        if verbosity > 1 {
            eprintln!("accepting connection from {from}");
        }
        if !fork {
            return join(split(stream), open(&second).await?).await;
        }
        let second = second.clone();
        tokio::spawn(async move {
            let carried = async { join(split(stream), open(&second).await?).await }.await;
            if let Err(error) = carried {
                eprintln!("socat: {from}: {error:#}");
            }
        });
    }
}

async fn open(address: &Address) -> Result<Ends> {
    Ok(match address {
        Address::Stdio => (Box::new(tokio::io::stdin()), Box::new(tokio::io::stdout())),
        Address::Connect { host, port } => split(
            TcpStream::connect((host.as_str(), *port))
                .await
                .with_context(|| format!("connect to {host}:{port}"))?,
        ),
        Address::Listen { .. } => bail!("TCP-LISTEN is understood as the first address only"),
    })
}

fn split(stream: TcpStream) -> Ends {
    let (read, write) = stream.into_split();
    (Box::new(read), Box::new(write))
}

/// Carries both ways; when one side has no more, the other one is told and may still answer.
async fn join(one: Ends, other: Ends) -> Result<()> {
    let ((mut read_one, mut write_one), (mut read_other, mut write_other)) = (one, other);
    let there = async {
        copy(&mut read_one, &mut write_other).await?;
        write_other.shutdown().await
    };
    let back = async {
        copy(&mut read_other, &mut write_one).await?;
        write_one.shutdown().await
    };
    let (there, back) = tokio::join!(there, back);
    there?;
    back?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn args(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(parse(&args("TCP-LISTEN:80,fork,reuseaddr TCP:web:80")).is_ok());
        assert!(parse(&args("-d -d TCP4-LISTEN:80 -")).is_ok());
        for wrong in [
            "-T5 - -",
            "TCP:web:80",
            "- TCP-LISTEN:80",
            "TCP-LISTEN:80,nodelay -",
            "UNIX-CONNECT:/x -",
            "TCP:web -",
        ] {
            assert!(parse(&args(wrong)).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn both_directions_are_carried_to_their_ends() {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = target.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = target.accept().await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            stream
                .write_all(format!("answer to {text}").as_bytes())
                .await
                .unwrap();
        });
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = front.accept().await.unwrap();
            let second: Address = format!("TCP:127.0.0.1:{port}").parse().unwrap();
            join(split(stream), open(&second).await.unwrap())
                .await
                .unwrap();
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer to question");
    }
}
