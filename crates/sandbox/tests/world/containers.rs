//! Cases within a cluster: containers and programs in them.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use sandbox::cgroup::{Hierarchy, Resources};
use sandbox::container::{Container, ExecSpec, Mount, MountSource, RootFs, User};
use sandbox::pod::PodSandbox;
use sandbox::process::{ExitStatus, TerminalSize};
use theater_sandbox as sandbox;

use crate::agent::{Outcome, Plan, expect, output, spec, until};

pub async fn container(plan: Plan) -> Outcome {
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let volume = tempfile::tempdir()?;
    std::fs::write(volume.path().join("key"), "value")?;
    let mount = |destination: &str, source, read_only| Mount {
        destination: destination.into(),
        source,
        read_only,
    };
    let rootfs = RootFs {
        applets: vec!["sleep".into(), "/usr/local/bin/pilot-agent".into()],
        hosts: "127.0.0.1 localhost\n10.10.0.11 pod-1\n".into(),
        resolv_conf: "nameserver 10.97.0.10\n".into(),
        mounts: vec![
            mount("/etc/config", MountSource::Host(volume.path().into()), true),
            mount("/data", MountSource::Host(volume.path().into()), false),
            mount(
                "/etc/one/file",
                MountSource::Host(volume.path().join("key")),
                true,
            ),
            mount(
                "/var/run/secrets/token",
                MountSource::File {
                    content: b"secret".to_vec(),
                    mode: 0o400,
                },
                true,
            ),
            mount(
                "/cache",
                MountSource::Tmpfs {
                    size_bytes: Some(4096),
                    mode: 0o1777,
                },
                false,
            ),
        ],
        ..RootFs::default()
    };
    let run = async |args: &[&str], rootfs: &RootFs| -> Outcome {
        let mut s = spec(args);
        s.rootfs = rootfs.clone();
        s.env = vec![("A".into(), "b c".into()), ("PATH".into(), "/bin".into())];
        s.cwd = "/app/work".into();
        let (container, stdio) = Container::start(&pod, &s).await?;
        let text = output(stdio).await?;
        container.wait().await;
        Ok(text)
    };
    let cat = async |path: &str| run(&["cat", path], &rootfs).await;
    expect("volume", &cat("/etc/config/key").await?, "value")?;
    expect("single file", &cat("/etc/one/file").await?, "value")?;
    expect("secret", &cat("/run/secrets/token").await?, "secret")?;
    expect(
        "/etc/hosts",
        &cat("/etc/hosts").await?,
        rootfs.hosts.trim_end(),
    )?;
    expect(
        "/etc/resolv.conf",
        &cat("/etc/resolv.conf").await?,
        "nameserver 10.97.0.10",
    )?;
    expect("/etc/hostname", &cat("/etc/hostname").await?, "pod-1")?;
    let read_only = "error: Read-only file system (os error 30)";
    let write = async |path: &str| run(&["write", path], &rootfs).await;
    expect(
        "read-only volume",
        &write("/etc/config/key").await?,
        read_only,
    )?;
    expect("writable volume", &write("/data/new").await?, "written")?;
    expect(
        "the volume itself",
        &std::fs::read_to_string(volume.path().join("new"))?,
        "x",
    )?;
    expect("root", &write("/app/file").await?, "written")?;
    expect("memory volume", &write("/cache/file").await?, "written")?;
    expect(
        "the program",
        &write("/bin/theater").await?,
        "error: Text file busy (os error 26)",
    )
    .or_else(|e| {
        if e.to_string().contains("Read-only") {
            Ok(())
        } else {
            Err(e)
        }
    })?;
    expect(
        "kernel settings",
        &write("/proc/sys/kernel/hostname").await?,
        read_only,
    )?;
    let closed = RootFs {
        read_only: true,
        ..rootfs.clone()
    };
    expect(
        "read-only root",
        &run(&["write", "/app/file"], &closed).await?,
        read_only,
    )?;
    expect(
        "volume in a read-only root",
        &run(&["write", "/data/new"], &closed).await?,
        "written",
    )?;
    expect(
        "/dev",
        &run(&["ls", "/dev"], &rootfs).await?,
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
    )?;
    expect(
        "applets",
        &run(&["ls", "/bin"], &rootfs).await?,
        "sleep theater",
    )?;
    expect(
        "full path applet",
        &run(&["ls", "/usr/local/bin"], &rootfs).await?,
        "pilot-agent",
    )?;
    expect(
        "/dev/stdout",
        &run(&["write", "/dev/stdout"], &rootfs).await?,
        "xwritten",
    )?;
    // The machine's files are not there.
    let top = run(&["ls", "/"], &rootfs).await?;
    for hidden in ["home", "sys", "boot"] {
        if top.split(' ').any(|n| n == hidden) {
            return Err(format!("/{hidden} of the machine is visible: {top}").into());
        }
    }
    let processes = run(&["ls", "/proc"], &rootfs).await?;
    let pids: Vec<_> = processes
        .split(' ')
        .filter(|n| n.parse::<u32>().is_ok())
        .collect();
    expect("processes", &pids.join(" "), "1")?;

    let who = run(&["who"], &rootfs).await?;
    expect(
        "identity",
        &who,
        "pid=1 uid=0 gid=0 caps=00000000a80425fb nnp=1 host=pod-1 cwd=/app/work env=A=b c,PATH=/bin,HOSTNAME=pod-1,HOME=/root",
    )?;
    let mut s = spec(&["who"]);
    s.user = User {
        uid: 1337,
        gid: 1337,
        groups: vec![],
    };
    s.capabilities = s
        .capabilities
        .adjusted(&["NET_ADMIN".into()], &["ALL".into()]);
    let (_c, stdio) = Container::start(&pod, &s).await?;
    let who = output(stdio).await?;
    let id = if sandbox::world::uid_is_mapped(1337) {
        1337
    } else {
        0
    };
    let expected = format!("pid=1 uid={id} gid={id} caps=0000000000001000 nnp=1 ");
    if !who.starts_with(&expected) {
        return Err(format!("proxy's identity: seen {who:?}, expected {expected:?}").into());
    }
    Ok(String::new())
}

pub async fn exec(plan: Plan) -> Outcome {
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let mut s = spec(&["sleep"]);
    s.env = vec![("FROM".into(), "container".into())];
    s.cwd = "/app".into();
    let (container, _stdio) = Container::start(&pod, &s).await?;
    let exec = |args: &[&str]| ExecSpec {
        argv: ["theater", "tool"]
            .iter()
            .chain(args)
            .map(|s| (*s).to_owned())
            .collect(),
        ..ExecSpec::default()
    };

    let (process, stdio) = container.exec(&exec(&["who"])).await?;
    let who = output(stdio).await?;
    if !who.contains(" host=pod-1 cwd=/app ")
        || !who.contains("FROM=container")
        || who.contains("pid=1 ")
    {
        return Err(format!("exec is not in its container: {who:?}").into());
    }
    if !process.wait().await.success() {
        return Err("exec failed".into());
    }
    let (_p, stdio) = container.exec(&exec(&["write", "/app/file"])).await?;
    output(stdio).await?;
    let (_p, stdio) = container.exec(&exec(&["cat", "/app/file"])).await?;
    expect("files of an earlier exec", &output(stdio).await?, "x")?;

    let mut with_input = exec(&["echo"]);
    with_input.stdin = true;
    let (_p, mut stdio) = container.exec(&with_input).await?;
    let mut input = std::fs::File::from(stdio.stdin.take().ok_or("no stdin")?);
    input.write_all(b"hello")?;
    drop(input);
    expect("streams", &output(stdio).await?, "HELLO|5 bytes")?;

    let mut with_terminal = exec(&["terminal"]);
    with_terminal.tty = Some(TerminalSize {
        rows: 10,
        columns: 20,
    });
    let (process, mut stdio) = container.exec(&with_terminal).await?;
    let terminal = stdio.terminal.take().ok_or("no terminal")?;
    terminal.resize(TerminalSize {
        rows: 33,
        columns: 99,
    })?;
    let mut io = std::fs::File::from(terminal.try_clone()?.fd);
    io.write_all(b"hi\n")?;
    let text = tokio::task::spawn_blocking(move || {
        let (mut text, mut buffer) = (String::new(), [0; 256]);
        // The end of a terminal is EIO.
        while let Ok(n @ 1..) = io.read(&mut buffer) {
            text += &String::from_utf8_lossy(&buffer[..n]);
        }
        text
    });
    let text = text.await?;
    if !text.contains("tty=1 33x99 said hi") || !process.wait().await.success() {
        return Err(format!("terminal: seen {text:?}").into());
    }

    let missing = container
        .exec(&ExecSpec {
            argv: vec!["bash".into()],
            ..ExecSpec::default()
        })
        .await
        .unwrap_err();
    expect(
        "missing program",
        &missing.to_string(),
        "exec: \"bash\": executable file not found in $PATH",
    )?;
    // An exec ends with its container.
    let (process, _stdio) = container.exec(&exec(&["sleep"])).await?;
    container.kill(libc::SIGKILL)?;
    container.wait().await;
    if process.wait().await != ExitStatus::Signal(9) {
        return Err("an exec outlived its container".into());
    }
    let late = container
        .exec(&exec(&["who"]))
        .await
        .unwrap_err()
        .to_string();
    expect(
        "exec after the end",
        &late,
        "container test/container is not running",
    )?;
    Ok(String::new())
}

pub async fn limits(plan: Plan) -> Outcome {
    let directory = tempfile::tempdir()?;
    let groups = match Hierarchy::create(directory.path()) {
        Ok(groups) => groups,
        Err(why) => {
            // Root of a machine that has control groups can make some.
            let ordinary = !sandbox::world::uid_is_mapped(12_345);
            if !ordinary && std::env::var("CI").is_ok_and(|ci| ci == "true") {
                return Err(why.into());
            }
            println!("limits: skipped: {why}");
            return Ok(String::new());
        }
    };
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let start = async |args: &[&str], resources: Resources| {
        let group = groups.group(&resources)?;
        let mut s = spec(args);
        s.cgroups.clone_from(&group);
        let (container, stdio) = Container::start(&pod, &s).await?;
        Ok::<_, Box<dyn std::error::Error>>((container, stdio, group))
    };
    let memory = |mib: u64| Resources {
        memory_bytes: Some(mib << 20),
        ..Resources::default()
    };
    // Within its limit, and beyond it.
    let (c, stdio, group) = start(&["allocate", "16"], memory(64)).await?;
    expect("allocated", &output(stdio).await?, "16")?;
    expect("within", &format!("{:?}", c.wait().await), "Code(0)")?;
    expect(
        "no kill",
        &groups.ran_out_of_memory(&group).to_string(),
        "false",
    )?;
    groups.release(group);
    let (c, _stdio, group) = start(&["allocate", "256"], memory(64)).await?;
    expect("beyond", &format!("{:?}", c.wait().await), "Signal(9)")?;
    expect(
        "a kill",
        &groups.ran_out_of_memory(&group).to_string(),
        "true",
    )?;
    let left = group.clone();
    groups.release(group);
    // What is executed in a container counts as well.
    let (c, _stdio, group) = start(&["sleep"], memory(64)).await?;
    let mut argv = spec(&["allocate", "256"]).argv;
    let exec = ExecSpec {
        argv: std::mem::take(&mut argv),
        ..ExecSpec::default()
    };
    let (process, _streams) = c.exec(&exec).await?;
    expect("exec", &format!("{:?}", process.wait().await), "Signal(9)")?;
    c.kill(libc::SIGKILL)?;
    c.wait().await;
    groups.release(group);
    // A tenth of a processor.
    let tenth = Resources {
        cpu_milli: Some(100),
        cpu_request_milli: Some(100),
        ..Resources::default()
    };
    let (c, stdio, group) = start(&["burn", "500"], tenth).await?;
    let used: u64 = output(stdio).await?.parse()?;
    c.wait().await;
    if used > 250 {
        return Err(format!("a tenth of 500 ms is allowed, {used} ms were used").into());
    }
    groups.release(group);
    drop(groups);
    expect("nothing is left", &left[0].exists().to_string(), "false")?;
    let home = left[0].parent().is_some_and(std::path::Path::exists);
    expect("no directory of the node", &home.to_string(), "false")?;
    Ok(String::new())
}

pub async fn exit(plan: Plan) -> Outcome {
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let (c, _stdio) = Container::start(&pod, &spec(&["exit", "42"])).await?;
    // Several waiters get the same answer.
    let (a, b) = tokio::join!(c.wait(), c.wait());
    expect(
        "exit code",
        &format!("{a:?} {b:?} {:?}", c.try_wait()),
        "Code(42) Code(42) Some(Code(42))",
    )?;
    let (c, _stdio) = Container::start(&pod, &spec(&["sleep"])).await?;
    c.kill(libc::SIGKILL)?;
    expect("killed", &format!("{:?}", c.wait().await), "Signal(9)")?;
    c.kill(libc::SIGTERM)?;
    let (c, stdio) = Container::start(&pod, &spec(&["graceful"])).await?;
    let mut out = BufReader::new(std::fs::File::from(stdio.stdout.ok_or("no stdout")?));
    out.read_line(&mut String::new())?;
    c.kill(libc::SIGTERM)?;
    expect("graceful", &format!("{:?}", c.wait().await), "Code(7)")?;
    let mut s = spec(&[]);
    s.argv = vec!["nonsense".into()];
    let e = Container::start(&pod, &s).await.unwrap_err();
    expect(
        "unknown program",
        &e.to_string(),
        "exec: \"nonsense\": executable file not found in $PATH",
    )?;
    s.argv = vec![];
    expect(
        "no program",
        &Container::start(&pod, &s).await.unwrap_err().to_string(),
        "container test/container: no command given",
    )?;
    let mut s = spec(&["exit", "0"]);
    s.rootfs.mounts = vec![Mount {
        destination: "/v".into(),
        source: MountSource::Host("/no/such/place".into()),
        read_only: true,
    }];
    let e = Container::start(&pod, &s).await.unwrap_err();
    expect(
        "missing volume",
        &e.to_string(),
        "mount /no/such/place: No such file or directory (os error 2)",
    )?;
    // Dropped containers die and leave no zombie.
    let (c, _stdio) = Container::start(&pod, &spec(&["sleep"])).await?;
    let status = PathBuf::from(format!("/proc/{}/status", c.pid()));
    drop(c);
    until("a dropped container is gone", || !status.exists())?;
    let children = || {
        std::fs::read_dir("/proc").map_or(0, |d| {
            d.flatten()
                .filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok())
                .count()
        })
    };
    until("no process but this one remains", || children() == 1)?;
    Ok(String::new())
}

pub async fn host_programs(plan: Plan) -> Outcome {
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let mut s = spec(&[]);
    s.argv = ["uname", "-n"].map(String::from).into();
    s.rootfs.host_programs = true;
    let (_c, stdio) = match Container::start(&pod, &s).await {
        Err(sandbox::Error::Exec { .. }) => return Ok("uname is not in /usr/bin here".into()),
        other => other?,
    };
    expect("uname of the machine", &output(stdio).await?, "pod-1")?;
    s.argv = ["theater", "tool", "exit", "3"].map(String::from).into();
    let (c, _stdio) = Container::start(&pod, &s).await?;
    expect(
        "own program beside",
        &format!("{:?}", c.wait().await),
        "Code(3)",
    )?;
    Ok(String::new())
}

pub async fn hold_pods(plan: Plan) -> Outcome {
    let marker = std::env::var("MARKER")?;
    for n in 1..=2 {
        let pod = PodSandbox::create(plan.pod(n)).await?;
        let mut s = spec(&["sleep"]);
        s.env = vec![("MARKER".into(), marker.clone())];
        let (c, stdio) = Container::start(&pod, &s).await?;
        let exec = c
            .exec(&ExecSpec {
                argv: s.argv.clone(),
                ..ExecSpec::default()
            })
            .await?;
        std::mem::forget((pod, c, stdio, exec));
    }
    Ok(String::new())
}
