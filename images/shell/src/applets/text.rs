//! Lines and bytes: `cat`, `head`, `tail`, `wc`, `tee`, `cut`, `uniq`, `seq`, `yes`, `base64`.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Read, Seek, Write};
use std::time::Duration;

use super::{complain, each_input, open, read_line, trimmed};
use crate::options::{Ended, Failure, Options, about};
use crate::output::{self, Out};

pub(super) fn cat(args: &[String]) -> Ended {
    let options = Options::parse(args, "nu")?;
    let mut out = output::stdout();
    let mut number = 0;
    each_input("cat", &options.operands, |_, mut reader| {
        if options.has('n') {
            while let Some(line) = read_line(&mut *reader)? {
                number += 1;
                write!(out, "{number:>6}\t")?;
                out.write_all(&line)?;
            }
            out.flush()?;
            return Ok(());
        }
        // What has been read is passed on at once: the other end may be waiting for it.
        loop {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                return Ok(());
            }
            out.write_all(bytes)?;
            out.flush()?;
            let count = bytes.len();
            reader.consume(count);
        }
    })
}

/// The old form `-5` of `-n 5`; what follows `-n` or `-c` is their value.
fn modern(args: &[String]) -> Vec<String> {
    let mut value = false;
    args.iter()
        .map(|arg| {
            let is_value = std::mem::replace(&mut value, arg == "-n" || arg == "-c");
            match arg.strip_prefix('-') {
                Some(digits)
                    if !is_value
                        && !digits.is_empty()
                        && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
                {
                    format!("-n{digits}")
                }
                _ => arg.clone(),
            }
        })
        .collect()
}

fn title(out: &mut Out, name: &str, first: &mut bool) -> Result<(), Failure> {
    let gap = if *first { "" } else { "\n" };
    *first = false;
    let name = if name == "-" { "standard input" } else { name };
    Ok(writeln!(out, "{gap}==> {name} <==")?)
}

pub(super) fn head(args: &[String]) -> Ended {
    let options = Options::parse(&modern(args), "n:c:q")?;
    let lines: i64 = options.number('n')?.unwrap_or(10);
    let bytes: Option<u64> = options.number('c')?;
    let mut out = output::stdout();
    let mut first = true;
    let titled = options.operands.len() > 1 && !options.has('q');
    let status = each_input("head", &options.operands, |name, mut reader| {
        if titled {
            title(&mut out, name, &mut first)?;
        }
        if let Some(count) = bytes {
            std::io::copy(&mut reader.take(count), &mut out)?;
            return Ok(());
        }
        if lines < 0 {
            // All but the last ones.
            let mut kept = VecDeque::new();
            while let Some(line) = read_line(&mut *reader)? {
                kept.push_back(line);
                if kept.len() as u64 > lines.unsigned_abs() {
                    out.write_all(&kept.pop_front().unwrap_or_default())?;
                }
            }
            return Ok(());
        }
        for _ in 0..lines {
            match read_line(&mut *reader)? {
                Some(line) => out.write_all(&line)?,
                None => break,
            }
        }
        Ok(())
    })?;
    out.flush()?;
    Ok(status)
}

#[derive(Clone, Copy)]
enum Amount {
    /// So many at the end.
    Last(u64),
    /// From this one on, counted from one.
    From(u64),
}

fn amount(text: &str) -> Result<Amount, Failure> {
    let invalid = |_| Failure::Usage(format!("invalid number '{text}'"));
    match text.strip_prefix('+') {
        Some(digits) => digits.parse().map(Amount::From).map_err(invalid),
        None => text
            .strip_prefix('-')
            .unwrap_or(text)
            .parse()
            .map(Amount::Last)
            .map_err(invalid),
    }
}

pub(super) fn tail(args: &[String]) -> Ended {
    let options = Options::parse(&modern(args), "fFn:c:q")?;
    let lines = amount(options.value('n').unwrap_or("10"))?;
    let bytes = options.value('c').map(amount).transpose()?;
    let follow = options.has('f') || options.has('F');
    let mut out = output::stdout();
    let mut first = true;
    let titled = options.operands.len() > 1 && !options.has('q');
    let status = each_input("tail", &options.operands, |name, mut reader| {
        if titled {
            title(&mut out, name, &mut first)?;
        }
        match bytes {
            Some(amount) => tail_bytes(&mut *reader, amount, &mut out),
            None => tail_lines(&mut *reader, lines, &mut out),
        }
    })?;
    out.flush()?;
    if follow {
        return follow_files(&options.operands, titled, &mut out, status);
    }
    Ok(status)
}

fn tail_lines(reader: &mut dyn BufRead, amount: Amount, out: &mut Out) -> Result<(), Failure> {
    let mut number = 0;
    let mut kept = VecDeque::new();
    while let Some(line) = read_line(reader)? {
        number += 1;
        match amount {
            Amount::From(from) if number >= from => out.write_all(&line)?,
            Amount::From(_) | Amount::Last(0) => {}
            Amount::Last(count) => {
                kept.push_back(line);
                if kept.len() as u64 > count {
                    kept.pop_front();
                }
            }
        }
    }
    for line in kept {
        out.write_all(&line)?;
    }
    Ok(())
}

fn tail_bytes(reader: &mut dyn BufRead, amount: Amount, out: &mut Out) -> Result<(), Failure> {
    match amount {
        Amount::From(from) => {
            std::io::copy(
                &mut reader.take(from.saturating_sub(1)),
                &mut std::io::sink(),
            )?;
            std::io::copy(reader, out)?;
        }
        Amount::Last(count) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let mut kept: VecDeque<u8> = VecDeque::new();
            let mut chunk = [0; 8192];
            loop {
                let read = reader.read(&mut chunk)?;
                if read == 0 {
                    break;
                }
                kept.extend(&chunk[..read]);
                let excess = kept.len().saturating_sub(count);
                kept.drain(..excess);
            }
            let (a, b) = kept.as_slices();
            out.write_all(a)?;
            out.write_all(b)?;
        }
    }
    Ok(())
}

/// Shows what is added to files, until a signal ends it.
fn follow_files(names: &[String], titled: bool, out: &mut Out, status: i32) -> Ended {
    let mut files: Vec<(&String, File, u64)> = Vec::new();
    for name in names {
        if let Ok(mut file) = File::open(name) {
            let end = file.seek(std::io::SeekFrom::End(0))?;
            files.push((name, file, end));
        }
    }
    if files.is_empty() {
        return Ok(status);
    }
    let mut shown = files.len() - 1;
    loop {
        std::thread::sleep(Duration::from_millis(250));
        for (index, (name, file, position)) in files.iter_mut().enumerate() {
            let size = file.metadata()?.len();
            if size < *position {
                *position = file.seek(std::io::SeekFrom::Start(0))?;
            }
            if size == *position {
                continue;
            }
            if titled && shown != index {
                title(out, name, &mut false)?;
                shown = index;
            }
            *position += std::io::copy(file, out)?;
            out.flush()?;
        }
    }
}

pub(super) fn wc(args: &[String]) -> Ended {
    let options = Options::parse(args, "clmw")?;
    let all = !"clmw".chars().any(|letter| options.has(letter));
    let wanted = [
        all || options.has('l'),
        all || options.has('w'),
        options.has('m'),
        all || options.has('c'),
    ];
    let mut rows: Vec<([u64; 4], String)> = Vec::new();
    let status = each_input("wc", &options.operands, |name, mut reader| {
        let mut counts = [0; 4];
        let mut in_word = false;
        loop {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            for byte in bytes {
                counts[0] += u64::from(*byte == b'\n');
                let blank = byte.is_ascii_whitespace();
                counts[1] += u64::from(!blank && !in_word);
                in_word = !blank;
                counts[2] += u64::from(byte & 0xc0 != 0x80);
            }
            counts[3] += bytes.len() as u64;
            let count = bytes.len();
            reader.consume(count);
        }
        rows.push((counts, name.to_owned()));
        Ok(())
    })?;
    if options.operands.len() > 1 {
        let mut total = [0; 4];
        for (counts, _) in &rows {
            for (sum, count) in total.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        rows.push((total, "total".into()));
    }
    let single = wanted.iter().filter(|wanted| **wanted).count() == 1;
    let mut out = output::stdout();
    for (counts, name) in rows {
        let shown: Vec<String> = counts
            .iter()
            .zip(wanted)
            .filter(|(_, wanted)| *wanted)
            .map(|(count, _)| {
                if single {
                    count.to_string()
                } else {
                    format!("{count:>9}")
                }
            })
            .collect();
        let name = if options.operands.is_empty() {
            String::new()
        } else {
            format!(" {name}")
        };
        writeln!(out, "{}{name}", shown.join(" "))?;
    }
    out.flush()?;
    Ok(status)
}

pub(super) fn tee(args: &[String]) -> Ended {
    let options = Options::parse(args, "ai")?;
    if options.has('i') {
        // Safety: an action of the system's own.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    }
    let mut status = 0;
    let mut files = Vec::new();
    for name in &options.operands {
        let append = options.has('a');
        match OpenOptions::new()
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append)
            .open(name)
        {
            Ok(file) => files.push((name, file)),
            Err(error) => {
                complain("tee", &about(name, &error));
                status = 1;
            }
        }
    }
    let mut input = std::io::stdin().lock();
    let mut chunk = [0; 8192];
    loop {
        let count = input.read(&mut chunk)?;
        if count == 0 {
            return Ok(status);
        }
        output::write_all(1, &chunk[..count])?;
        for (name, file) in &mut files {
            if let Err(error) = file.write_all(&chunk[..count]) {
                complain("tee", &about(name, &error));
                status = 1;
            }
        }
    }
}

/// Ranges of `cut`: `1,3-5,7-`.
fn ranges(text: &str) -> Result<Vec<(usize, usize)>, Failure> {
    let invalid = || Failure::Usage(format!("invalid list '{text}'"));
    text.split(',')
        .map(|range| {
            let number = |text: &str, default| {
                if text.is_empty() {
                    Ok(default)
                } else {
                    text.parse::<usize>().map_err(|_| invalid())
                }
            };
            let (first, last) = match range.split_once('-') {
                Some(("", "")) => return Err(invalid()),
                Some((first, last)) => (number(first, 1)?, number(last, usize::MAX)?),
                None => (number(range, 0)?, number(range, 0)?),
            };
            if first == 0 || last < first {
                Err(invalid())
            } else {
                Ok((first, last))
            }
        })
        .collect()
}

pub(super) fn cut(args: &[String]) -> Ended {
    let options = Options::parse(args, "b:c:f:d:s")?;
    let kinds: Vec<char> = "bcf"
        .chars()
        .filter(|letter| options.value(*letter).is_some())
        .collect();
    let [kind] = kinds[..] else {
        return Err(Failure::Usage("one of -b, -c and -f expected".into()));
    };
    let ranges = ranges(options.value(kind).unwrap_or_default())?;
    let wanted = |index: usize| {
        ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&(index + 1)))
    };
    let delimiter = match options.value('d').map(str::as_bytes) {
        None => b'\t',
        Some([single]) => *single,
        Some(_) => return Err(Failure::Usage("the delimiter must be one character".into())),
    };
    let mut out = output::stdout();
    let status = each_input("cut", &options.operands, |_, mut reader| {
        while let Some(line) = read_line(&mut *reader)? {
            let line = trimmed(&line);
            match kind {
                'f' if !line.contains(&delimiter) => {
                    if options.has('s') {
                        continue;
                    }
                    out.write_all(line)?;
                }
                'f' => {
                    let fields = line.split(|byte| *byte == delimiter).enumerate();
                    let chosen: Vec<&[u8]> = fields
                        .filter(|(index, _)| wanted(*index))
                        .map(|(_, field)| field)
                        .collect();
                    out.write_all(&chosen.join(&delimiter))?;
                }
                'c' => {
                    let text = String::from_utf8_lossy(line);
                    let chosen: String = text
                        .chars()
                        .enumerate()
                        .filter(|(index, _)| wanted(*index))
                        .map(|(_, c)| c)
                        .collect();
                    out.write_all(chosen.as_bytes())?;
                }
                _ => {
                    let chosen: Vec<u8> = line
                        .iter()
                        .enumerate()
                        .filter(|(index, _)| wanted(*index))
                        .map(|(_, byte)| *byte)
                        .collect();
                    out.write_all(&chosen)?;
                }
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    })?;
    out.flush()?;
    Ok(status)
}

pub(super) fn uniq(args: &[String]) -> Ended {
    let options = Options::parse(args, "cdiu")?;
    options.at_most(2)?;
    let mut reader = open(options.operands.first().map_or("-", String::as_str))?;
    let mut out: Box<dyn Write> = match options.operands.get(1) {
        Some(name) => Box::new(File::create(name).map_err(|error| about(name, &error))?),
        None => Box::new(output::stdout()),
    };
    let same = |a: &[u8], b: &[u8]| {
        if options.has('i') {
            a.eq_ignore_ascii_case(b)
        } else {
            a == b
        }
    };
    let mut current: Option<(Vec<u8>, u64)> = None;
    loop {
        let line = read_line(&mut *reader)?.map(|line| trimmed(&line).to_vec());
        if let (Some(line), Some((text, count))) = (&line, &mut current)
            && same(line, text)
        {
            *count += 1;
            continue;
        }
        if let Some((text, count)) = current.take() {
            let repeated = count > 1;
            if !(options.has('d') && !repeated || options.has('u') && repeated) {
                if options.has('c') {
                    write!(out, "{count:>7} ")?;
                }
                out.write_all(&text)?;
                out.write_all(b"\n")?;
            }
        }
        match line {
            Some(line) => current = Some((line, 1)),
            None => break,
        }
    }
    out.flush()?;
    Ok(0)
}

pub(super) fn seq(args: &[String]) -> Ended {
    // Negative numbers are no options.
    let split = args
        .iter()
        .position(|arg| !(arg.starts_with("-s") || arg == "-w"))
        .unwrap_or(args.len());
    let split = if split > 0 && args[split - 1] == "-s" {
        (split + 1).min(args.len())
    } else {
        split
    };
    let options = Options::parse(&args[..split], "s:w")?;
    let numbers = &args[split..];
    let parse = |text: &String| {
        text.parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .ok_or_else(|| Failure::Usage(format!("invalid number '{text}'")))
    };
    let values = numbers.iter().map(parse).collect::<Result<Vec<f64>, _>>()?;
    let (first, step, last) = match values[..] {
        [last] => (1.0, 1.0, last),
        [first, last] => (first, 1.0, last),
        [first, step, last] => (first, step, last),
        _ => return Err(Failure::Usage("one to three numbers expected".into())),
    };
    if step == 0.0 {
        return Err(Failure::Usage("the step must not be zero".into()));
    }
    let decimals = numbers
        .iter()
        .take(2.min(numbers.len().saturating_sub(1)))
        .map(|text| text.split_once('.').map_or(0, |(_, digits)| digits.len()))
        .max()
        .unwrap_or(0);
    let count = ((last - first) / step + 1e-10).floor();
    let shown = |number: f64| format!("{number:.decimals$}");
    let width = if options.has('w') {
        shown(first).len().max(shown(last).len())
    } else {
        0
    };
    let separator = options.value('s').unwrap_or("\n");
    let mut out = output::stdout();
    let mut index = 0.0;
    while index <= count {
        if index > 0.0 {
            out.write_all(separator.as_bytes())?;
        }
        write!(out, "{:0>width$}", shown(first + index * step))?;
        index += 1.0;
    }
    if count >= 0.0 {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(0)
}

pub(super) fn yes(args: &[String]) -> Ended {
    let text = if args.is_empty() {
        "y".to_owned()
    } else {
        args.join(" ")
    } + "\n";
    let mut out = output::stdout();
    loop {
        out.write_all(text.as_bytes())?;
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn base64(args: &[String]) -> Ended {
    let options = Options::parse(args, "dw:")?;
    options.at_most(1)?;
    let mut input = Vec::new();
    open(options.operands.first().map_or("-", String::as_str))?.read_to_end(&mut input)?;
    let mut out = output::stdout();
    if options.has('d') {
        out.write_all(&decode(&input)?)?;
        out.flush()?;
        return Ok(0);
    }
    let columns: usize = options.number('w')?.unwrap_or(76);
    let mut text = Vec::new();
    for chunk in input.chunks(3) {
        let number = chunk
            .iter()
            .fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            text.push(if place > chunk.len() {
                b'='
            } else {
                ALPHABET[(number >> (18 - 6 * place) & 63) as usize]
            });
        }
    }
    if columns == 0 {
        out.write_all(&text)?;
    } else {
        for line in text.chunks(columns) {
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(0)
}

fn decode(input: &[u8]) -> Result<Vec<u8>, Failure> {
    let invalid = || Failure::Message("invalid input".into());
    let digits: Vec<u8> = input
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let body = digits
        .strip_suffix(b"==")
        .or_else(|| digits.strip_suffix(b"="))
        .unwrap_or(&digits);
    let mut out = Vec::new();
    for chunk in body.chunks(4) {
        if chunk.len() == 1 {
            return Err(invalid());
        }
        let mut number = 0_u32;
        for byte in chunk {
            let value = ALPHABET
                .iter()
                .position(|known| known == byte)
                .ok_or_else(invalid)?;
            number = number << 6 | value as u32;
        }
        number <<= 6 * (4 - chunk.len());
        out.extend_from_slice(&number.to_be_bytes()[1..chunk.len()]);
    }
    Ok(out)
}
