//! The image `istio/tcp-echo-server` of Istio's samples: answers every line with a prefix before it.
//! `tcp-echo PORT[,PORT…] PREFIX`; the prefix `hello` greets first, as the sample's does.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    ports: Vec<u16>,
    prefix: String,
}

impl Arguments {
    fn parse(args: &[String]) -> Result<Self> {
        let [ports, prefix] = args else {
            bail!("usage: tcp-echo PORT[,PORT...] PREFIX");
        };
        if ports.starts_with('-') {
            bail!("unknown option {ports}");
        }
        let ports = ports
            .split(',')
            .map(|port| {
                port.trim()
                    .parse()
                    .with_context(|| format!("{port:?} is no port"))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            ports,
            prefix: prefix.clone(),
        })
    }
}

/// Runs `tcp-echo ARGS…`; `args` are without the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let served = Arguments::parse(&args).and_then(|arguments| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(serve(arguments))
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcp-echo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<()> {
    let prefix: Arc<str> = arguments.prefix.into();
    for port in arguments.ports {
        let listener = TcpListener::bind(("0.0.0.0", port))
            .await
            .with_context(|| format!("cannot listen on port {port}"))?;
        println!("listening on {}, prefix: {prefix}", listener.local_addr()?);
        let prefix = prefix.clone();
        tokio::spawn(async move {
            loop {
                // Without a descriptor there is nothing to do but try again.
                let Ok((stream, from)) = listener.accept().await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let prefix = prefix.clone();
                tokio::spawn(async move {
                    if let Err(error) = echo(stream, &prefix).await {
                        eprintln!("{from}: {error}");
                    }
                });
            }
        });
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Lines in, lines with the prefix out, until the client has no more.
async fn echo(stream: TcpStream, prefix: &str) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    if prefix == "hello" {
        write.write_all(b"hello\n").await?;
        println!("response: hello");
    }
    let mut lines = BufReader::new(read);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).await? > 0 {
        println!("request: {}", String::from_utf8_lossy(&line).trim_end());
        let mut answer = format!("{prefix} ").into_bytes();
        answer.append(&mut line);
        println!("response: {}", String::from_utf8_lossy(&answer).trim_end());
        write.write_all(&answer).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[test]
    fn ports_and_prefix_are_needed_and_nothing_else_is_taken() {
        let parse = |args: &[&str]| {
            Arguments::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            parse(&["9000,9001", "one"]).unwrap(),
            Arguments {
                ports: vec![9000, 9001],
                prefix: "one".into()
            }
        );
        assert!(parse(&["9000"]).is_err());
        assert!(parse(&["nine", "one"]).is_err());
        assert!(parse(&["-v", "one"]).is_err());
    }

    #[tokio::test]
    async fn every_line_comes_back_with_the_prefix() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            echo(stream, "one").await.unwrap();
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"Tue Nov\nlast").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "one Tue Nov\none last");
    }
}
