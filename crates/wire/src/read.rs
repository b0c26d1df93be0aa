//! Reading messages.

use bytes::Bytes;

use super::{DecodeError, Fields, Place};

/// How deep messages may be inside of each other; protobuf's own limit.
const DEPTH: u32 = 100;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
pub(super) const LENGTH_DELIMITED: u8 = 2;
const START_GROUP: u8 = 3;
const END_GROUP: u8 = 4;
const FIXED32: u8 = 5;

type Result<T> = std::result::Result<T, DecodeError>;

fn wrong<T>(what: impl Into<String>) -> Result<T> {
    Err(DecodeError(what.into()))
}

/// Reads a whole message.
pub(super) fn merge(message: &mut dyn Fields, bytes: &[u8]) -> Result<()> {
    fields(message, bytes, DEPTH)
}

/// Reads the fields of a message that may hold others `depth` deep.
pub(super) fn fields(message: &mut dyn Fields, mut bytes: &[u8], depth: u32) -> Result<()> {
    while !bytes.is_empty() {
        let (number, kind) = key(&mut bytes)?;
        let outcome = match message.field(number) {
            Some(place) => value(place, kind, &mut bytes, depth),
            None => skip(&mut bytes, number, kind, depth),
        };
        outcome.map_err(|DecodeError(what)| DecodeError(format!("field {number}: {what}")))?;
    }
    Ok(())
}

fn value(place: Place<'_>, kind: u8, bytes: &mut &[u8], depth: u32) -> Result<()> {
    match place {
        Place::Bool(value) => *value = number(kind, bytes)? != 0,
        Place::Int32(value) => *value = number(kind, bytes)? as i32,
        Place::Int64(value) => *value = number(kind, bytes)? as i64,
        Place::Uint32(value) => *value = number(kind, bytes)? as u32,
        Place::Uint64(value) => *value = number(kind, bytes)?,
        Place::Fixed64(value) => {
            expect(kind, FIXED64)?;
            *value = u64::from_le_bytes(fixed(bytes)?);
        }
        Place::Float(value) => {
            expect(kind, FIXED32)?;
            *value = f32::from_le_bytes(fixed(bytes)?);
        }
        Place::Double(value) => {
            expect(kind, FIXED64)?;
            *value = f64::from_le_bytes(fixed(bytes)?);
        }
        Place::String(value) => match std::str::from_utf8(whole(kind, bytes)?) {
            Ok(text) => *value = text.to_owned(),
            Err(_) => return wrong("invalid string value: data is not UTF-8 encoded"),
        },
        Place::Bytes(value) => *value = Bytes::copy_from_slice(whole(kind, bytes)?),
        Place::Blob(value) => *value = whole(kind, bytes)?.to_vec(),
        Place::Message(message) => fields(message, whole(kind, bytes)?, deeper(depth)?)?,
        Place::Map(mut map) => map.entry(whole(kind, bytes)?, deeper(depth)?)?,
        Place::Int32s(values) => {
            return numbers(kind, bytes, &mut |number| values.push(number as i32));
        }
        Place::Uint32s(values) => {
            return numbers(kind, bytes, &mut |number| values.push(number as u32));
        }
        Place::Doubles(values) if kind == LENGTH_DELIMITED => {
            let mut packed = delimited(bytes)?;
            while !packed.is_empty() {
                values.push(f64::from_le_bytes(fixed(&mut packed)?));
            }
        }
        Place::Doubles(values) => {
            expect(kind, FIXED64)?;
            values.push(f64::from_le_bytes(fixed(bytes)?));
        }
    }
    Ok(())
}

fn expect(kind: u8, wanted: u8) -> Result<()> {
    if kind == wanted {
        Ok(())
    } else {
        wrong(format!("invalid wire type: {kind} (expected {wanted})"))
    }
}

fn deeper(depth: u32) -> Result<u32> {
    depth
        .checked_sub(1)
        .ok_or_else(|| DecodeError("recursion limit reached".to_owned()))
}

fn number(kind: u8, bytes: &mut &[u8]) -> Result<u64> {
    expect(kind, VARINT)?;
    varint(bytes)
}

/// Repeated numbers, packed or one by one, whatever the proto says.
fn numbers(kind: u8, bytes: &mut &[u8], push: &mut dyn FnMut(u64)) -> Result<()> {
    if kind == LENGTH_DELIMITED {
        let mut packed = delimited(bytes)?;
        while !packed.is_empty() {
            push(varint(&mut packed)?);
        }
    } else {
        push(number(kind, bytes)?);
    }
    Ok(())
}

fn whole<'a>(kind: u8, bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    expect(kind, LENGTH_DELIMITED)?;
    delimited(bytes)
}

/// A field's number and how its value is encoded.
pub(super) fn key(bytes: &mut &[u8]) -> Result<(u32, u8)> {
    let key = varint(bytes)?;
    let Ok(key) = u32::try_from(key) else {
        return wrong(format!("invalid key value: {key}"));
    };
    match (key >> 3, (key & 7) as u8) {
        (0, _) => wrong("invalid tag value: 0"),
        (_, kind @ 6..) => wrong(format!("invalid wire type value: {kind}")),
        (number, kind) => Ok((number, kind)),
    }
}

/// At most ten bytes; of the tenth, one bit counts.
fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if index == 9 && *byte > 1 {
                break;
            }
            *bytes = &bytes[index + 1..];
            return Ok(value);
        }
    }
    wrong("invalid varint")
}

pub(super) fn delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = varint(bytes)?;
    match usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length))
    {
        Some((value, rest)) => {
            *bytes = rest;
            Ok(value)
        }
        None => wrong("buffer underflow"),
    }
}

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    match bytes.split_first_chunk() {
        Some((value, rest)) => {
            *bytes = rest;
            Ok(*value)
        }
        None => wrong("buffer underflow"),
    }
}

/// Passes over a value that nobody wants.
pub(super) fn skip(bytes: &mut &[u8], number: u32, kind: u8, depth: u32) -> Result<()> {
    match kind {
        VARINT => varint(bytes).map(drop),
        FIXED64 => fixed::<8>(bytes).map(drop),
        LENGTH_DELIMITED => delimited(bytes).map(drop),
        FIXED32 => fixed::<4>(bytes).map(drop),
        START_GROUP => {
            let depth = deeper(depth)?;
            loop {
                match key(bytes)? {
                    (inner, END_GROUP) if inner == number => return Ok(()),
                    (_, END_GROUP) => return wrong("unexpected end group tag"),
                    (inner, kind) => skip(bytes, inner, kind, depth)?,
                }
            }
        }
        _ => wrong("unexpected end group tag"),
    }
}
