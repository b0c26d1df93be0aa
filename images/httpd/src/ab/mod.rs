//! `ab`: how many requests a server answers in a second.

mod load;
mod options;
mod report;

use std::process::ExitCode;

pub(crate) fn main(args: &[String]) -> ExitCode {
    match options::Options::parse(args) {
        Ok(options::Asked::Version) => {
            print!("{}", report::BANNER);
            ExitCode::SUCCESS
        }
        Ok(options::Asked::Help) => {
            print!("{}", options::USAGE);
            ExitCode::from(22)
        }
        Ok(options::Asked::Load(options)) => run(&options),
        Err(message) => {
            eprintln!("ab: {message}");
            eprint!("{}", options::USAGE);
            ExitCode::from(22)
        }
    }
}

fn run(options: &options::Options) -> ExitCode {
    print!(
        "{}\nBenchmarking {} (be patient)",
        report::BANNER,
        options.host
    );
    let loud = !options.quiet && options.requests > 150;
    if loud {
        println!();
    } else {
        print!("...");
    }
    // The first part is seen even if the rest takes long; a closed standard output is found out later.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ab: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(load::run(options)) {
        Ok(measured) => {
            if loud {
                eprintln!("Finished {} requests", measured.done.len());
            } else {
                println!("..done");
            }
            print!("{}", report::text(options, &measured));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{}", failure.message);
            if failure.completed > 0 {
                println!("Total of {} requests completed", failure.completed);
            }
            ExitCode::from(failure.code)
        }
    }
}
