//! Writing messages.

use super::Fields;

/// Takes the fields of a message. A method with a plain name leaves out what is at its default, as proto3 wants it of fields
/// without presence; the ones named `put_` do not.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// Adds a field of bytes, or of a message that is encoded already.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    let mut writer = Writer {
        bytes: std::mem::take(out),
    };
    writer.put_bytes(number, value);
    *out = writer.bytes;
}

/// The bytes of a message.
pub(super) fn whole(message: &dyn Fields) -> Vec<u8> {
    let mut out = Writer::default();
    message.write(&mut out);
    out.bytes.shrink_to_fit();
    out.bytes
}

/// Where a message begins whose length is not known yet.
#[derive(Debug)]
pub struct Start(usize);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn key(&mut self, number: u32, kind: u32) {
        self.varint(u64::from(number << 3 | kind));
    }

    /// A varint, also if it is zero.
    fn put_varint(&mut self, number: u32, value: u64) {
        self.key(number, 0);
        self.varint(value);
    }

    /// A `bool`.
    pub fn bool(&mut self, number: u32, value: bool) {
        if value {
            self.put_bool(number, value);
        }
    }

    /// A `bool`, whatever it is.
    pub fn put_bool(&mut self, number: u32, value: bool) {
        self.put_varint(number, u64::from(value));
    }

    /// An `int32` or an enum.
    pub fn int32(&mut self, number: u32, value: i32) {
        self.int64(number, i64::from(value));
    }

    /// An `int32` or an enum, whatever it is.
    pub fn put_int32(&mut self, number: u32, value: i32) {
        self.put_int64(number, i64::from(value));
    }

    /// An `int64`.
    pub fn int64(&mut self, number: u32, value: i64) {
        self.uint64(number, value as u64);
    }

    /// An `int64`, whatever it is.
    pub fn put_int64(&mut self, number: u32, value: i64) {
        self.put_varint(number, value as u64);
    }

    /// A `uint32`.
    pub fn uint32(&mut self, number: u32, value: u32) {
        self.uint64(number, u64::from(value));
    }

    /// A `uint32`, whatever it is.
    pub fn put_uint32(&mut self, number: u32, value: u32) {
        self.put_varint(number, u64::from(value));
    }

    /// A `uint64`.
    pub fn uint64(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.put_varint(number, value);
        }
    }

    /// A `uint64`, whatever it is.
    pub fn put_uint64(&mut self, number: u32, value: u64) {
        self.put_varint(number, value);
    }

    /// A `fixed64`.
    pub fn fixed64(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.key(number, 1);
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A `float`; of the zeros, only the positive one is the default.
    pub fn float(&mut self, number: u32, value: f32) {
        if value.to_bits() != 0 {
            self.key(number, 5);
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A `double`; of the zeros, only the positive one is the default.
    pub fn double(&mut self, number: u32, value: f64) {
        if value.to_bits() != 0 {
            self.put_double(number, value);
        }
    }

    /// A `double`, whatever it is.
    pub fn put_double(&mut self, number: u32, value: f64) {
        self.key(number, 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A `string`.
    pub fn string(&mut self, number: u32, value: &str) {
        self.bytes(number, value.as_bytes());
    }

    /// A `string`, whatever it is.
    pub fn put_string(&mut self, number: u32, value: &str) {
        self.put_bytes(number, value.as_bytes());
    }

    /// A `bytes`.
    pub fn bytes(&mut self, number: u32, value: &[u8]) {
        if !value.is_empty() {
            self.put_bytes(number, value);
        }
    }

    /// A `bytes`, whatever it is.
    pub fn put_bytes(&mut self, number: u32, value: &[u8]) {
        self.key(number, 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// Packed `int32`s or enums.
    pub fn int32s(&mut self, number: u32, values: &[i32]) {
        self.packed(number, values, |out, value| {
            out.varint(i64::from(value) as u64);
        });
    }

    /// Packed `uint32`s.
    pub fn uint32s(&mut self, number: u32, values: &[u32]) {
        self.packed(number, values, |out, value| out.varint(u64::from(value)));
    }

    fn packed<T: Copy>(&mut self, number: u32, values: &[T], one: fn(&mut Self, T)) {
        if !values.is_empty() {
            let start = self.begin(number);
            for value in values {
                one(self, *value);
            }
            self.end(start);
        }
    }

    /// A message.
    pub fn message(&mut self, number: u32, message: &dyn Fields) {
        let start = self.begin(number);
        message.write(self);
        self.end(start);
    }

    /// The value of an entry of a map.
    pub fn entry_message(&mut self, message: &dyn Fields) {
        let before = self.bytes.len();
        let start = self.begin(2);
        let Start(begin) = start;
        message.write(self);
        if self.bytes.len() == begin {
            self.bytes.truncate(before);
        } else {
            self.end(start);
        }
    }

    /// The key of a message whose fields follow, up to [`Writer::end`].
    pub fn begin(&mut self, number: u32) -> Start {
        self.key(number, 2);
        // Most are shorter than 128 bytes, and need no more for their length.
        self.bytes.push(0);
        Start(self.bytes.len())
    }

    /// The end of a message.
    pub fn end(&mut self, Start(start): Start) {
        let length = self.bytes.len() - start;
        let mut rest = length >> 7;
        let mut more = 0;
        while rest != 0 {
            more += 1;
            rest >>= 7;
        }
        if more > 0 {
            self.bytes.resize(start + length + more, 0);
            self.bytes.copy_within(start..start + length, start + more);
        }
        let mut rest = length;
        for place in start - 1..start + more {
            let last = place == start + more - 1;
            self.bytes[place] = (rest & 0x7f) as u8 | if last { 0 } else { 0x80 };
            rest >>= 7;
        }
    }
}
