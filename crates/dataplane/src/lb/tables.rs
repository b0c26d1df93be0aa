//! The tables of consistent hashing, built as Envoy builds them.

use crate::route::xxhash64;

/// Ketama: hosts at many points of a ring.
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<(u64, u32)>,
}

impl Ring {
    pub(super) fn new(
        keys: &[String],
        weights: &[f64],
        min: u64,
        max: u64,
        hash: fn(&[u8]) -> u64,
    ) -> Self {
        let total: f64 = weights.iter().sum();
        let normalized = |weight: &f64| if total > 0.0 { weight / total } else { 0.0 };
        let smallest = weights.iter().map(normalized).fold(1.0, f64::min);
        if keys.is_empty() || smallest <= 0.0 {
            let points = Vec::new();
            return Self { points };
        }
        // The lightest host gets a whole number of points.
        let scale = ((smallest * min as f64).ceil() / smallest).min(max as f64);
        let mut points = Vec::with_capacity(scale.ceil() as usize);
        let (mut current, mut target) = (0.0, 0.0);
        for (place, (key, weight)) in keys.iter().zip(weights).enumerate() {
            target += scale * normalized(weight);
            let mut number = 0_u64;
            while current < target {
                let point = hash(format!("{key}_{number}").as_bytes());
                points.push((point, place as u32));
                number += 1;
                current += 1.0;
            }
        }
        points.sort_unstable();
        Self { points }
    }

    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<usize> {
        let after = self.points.partition_point(|(point, _)| *point < hash);
        let index = (after + attempt as usize) % self.points.len().max(1);
        self.points.get(index).map(|(_, place)| *place as usize)
    }
}

/// MurmurHash2 for 64 bits as the C++ library hashes with it, seed included.
pub(super) fn murmur2(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SEED: u64 = 0xc70f_6907;
    let mix = |value: u64| value ^ (value >> 47);
    let word = |bytes: &[u8]| {
        let fold = |word: u64, byte: &u8| word << 8 | u64::from(*byte);
        bytes.iter().rev().fold(0, fold)
    };
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let chunks = bytes.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        hash ^= mix(word(chunk).wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
        hash = hash.wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        hash = (hash ^ word(rest)).wrapping_mul(FACTOR);
    }
    mix(mix(hash).wrapping_mul(FACTOR))
}

/// Maglev: every host has a permutation of the table and takes the next free place in turn.
#[derive(Debug)]
pub(super) struct Maglev {
    table: Vec<u32>,
}

impl Maglev {
    pub(super) fn new(keys: &[String], weights: &[f64], size: u64) -> Self {
        struct Entry {
            place: u32,
            offset: u64,
            skip: u64,
            weight: f64,
            target: f64,
            next: u64,
        }
        let heaviest = weights.iter().copied().fold(0.0, f64::max);
        if heaviest <= 0.0 {
            return Self { table: Vec::new() };
        }
        let mut places: Vec<usize> = (0..keys.len())
            .filter(|place| weights[*place] > 0.0)
            .collect();
        places.sort_unstable_by_key(|place| &keys[*place]);
        let mut entries: Vec<Entry> = places
            .into_iter()
            .map(|place| Entry {
                place: place as u32,
                offset: xxhash64(keys[place].as_bytes(), 0) % size,
                skip: xxhash64(keys[place].as_bytes(), 1) % (size - 1) + 1,
                weight: weights[place],
                target: 0.0,
                next: 0,
            })
            .collect();
        const FREE: u32 = u32::MAX;
        let mut table = vec![FREE; size as usize];
        let mut left = size;
        let mut round = 1.0;
        while left > 0 {
            for entry in &mut entries {
                if left == 0 {
                    break;
                }
                // Lighter hosts skip rounds until they have earned a place.
                if round * entry.weight < entry.target {
                    continue;
                }
                entry.target += heaviest;
                let free = loop {
                    let candidate = ((entry.offset + entry.skip * entry.next) % size) as usize;
                    entry.next += 1;
                    if table[candidate] == FREE {
                        break candidate;
                    }
                };
                table[free] = entry.place;
                left -= 1;
            }
            round += 1.0;
        }
        Self { table }
    }

    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<usize> {
        let hash = if attempt > 0 {
            hash ^ (u64::MAX - u64::from(attempt) + 1)
        } else {
            hash
        };
        self.table
            .get((hash % self.table.len().max(1) as u64) as usize)
            .map(|place| *place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<String> {
        (90..96).map(|port| format!("127.0.0.1:{port}")).collect()
    }

    #[test]
    fn a_small_maglev_table_is_envoys() {
        let maglev = Maglev::new(&keys(), &[1.0; 6], 7);
        let ports: Vec<u32> = maglev.table.iter().map(|place| 90 + place).collect();
        assert_eq!(ports, [92, 94, 90, 91, 95, 90, 93]);
    }

    #[test]
    fn a_small_ring_is_envoys() {
        let ring = Ring::new(&keys(), &[1.0; 6], 12, 12, |key| xxhash64(key, 0));
        let ring: Vec<(u32, u64)> = ring
            .points
            .iter()
            .map(|(hash, place)| (90 + place, *hash))
            .collect();
        assert_eq!(
            ring[..3],
            [
                (94, 833_437_586_790_550_860),
                (92, 928_266_305_478_181_108),
                (90, 1_033_482_794_131_418_490)
            ]
        );
        assert_eq!(ring.len(), 12);
    }
}
