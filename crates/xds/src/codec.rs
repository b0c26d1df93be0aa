//! Messages over gRPC.

use std::marker::PhantomData;

use bytes::{Buf as _, BufMut as _};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::Wire;

/// Writes messages of one type and reads those of another.
#[derive(Debug, Clone, Copy)]
pub struct WireCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for WireCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Wire + Send + 'static, U: Wire + Send + 'static> Codec for WireCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Half<T>;
    type Decoder = Half<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Half(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Half(PhantomData)
    }
}

/// One direction of a [`WireCodec`].
#[derive(Debug, Clone, Copy)]
pub struct Half<T>(PhantomData<T>);

impl<T: Wire> Encoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item.to_wire());
        Ok(())
    }
}

impl<T: Wire> Decoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let bytes = message.copy_to_bytes(message.remaining());
        T::from_wire(&bytes)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
