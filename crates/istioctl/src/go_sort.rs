//! Sorting as Go's `sort.Slice` does it. It is not stable, so the order of equal elements, and of
//! elements that a comparison does not order at all, is that of its algorithm: pattern-defeating
//! quicksort with fixed choices. Tables must come out in that order to be equal.

/// Slices up to this length are sorted by insertion.
const SHORT: usize = 12;

/// Sorts by `less`, which need not be a strict order.
pub fn sort<T>(items: &mut [T], less: impl Fn(&T, &T) -> bool) {
    let length = items.len();
    let limit = usize::BITS - length.leading_zeros();
    Sorter { items, less }.quick(0, length, limit);
}

#[derive(PartialEq)]
enum Hint {
    Unknown,
    Increasing,
    Decreasing,
}

struct Sorter<'a, T, F> {
    items: &'a mut [T],
    less: F,
}

impl<T, F: Fn(&T, &T) -> bool> Sorter<'_, T, F> {
    fn less(&self, a: usize, b: usize) -> bool {
        (self.less)(&self.items[a], &self.items[b])
    }

    fn insertion(&mut self, a: usize, b: usize) {
        for i in a + 1..b {
            let mut j = i;
            while j > a && self.less(j, j - 1) {
                self.items.swap(j, j - 1);
                j -= 1;
            }
        }
    }

    fn quick(&mut self, mut a: usize, mut b: usize, mut limit: u32) {
        let (mut balanced, mut partitioned) = (true, true);
        loop {
            let length = b - a;
            if length <= SHORT {
                return self.insertion(a, b);
            }
            if limit == 0 {
                return self.heap(a, b);
            }
            if !balanced {
                self.break_patterns(a, b);
                limit -= 1;
            }
            let (mut pivot, mut hint) = self.choose_pivot(a, b);
            if hint == Hint::Decreasing {
                self.items[a..b].reverse();
                pivot = (b - 1) - (pivot - a);
                hint = Hint::Increasing;
            }
            if balanced && partitioned && hint == Hint::Increasing && self.nearly_sorted(a, b) {
                return;
            }
            // The pivot equals the element before this part: everything equal to it goes left.
            if a > 0 && !self.less(a - 1, pivot) {
                a = self.partition_equal(a, b, pivot);
                continue;
            }
            let (middle, already) = self.partition(a, b, pivot);
            partitioned = already;
            let (left, right) = (middle - a, b - middle);
            let enough = length / 8;
            if left < right {
                balanced = left >= enough;
                self.quick(a, middle, limit);
                a = middle + 1;
            } else {
                balanced = right >= enough;
                self.quick(middle + 1, b, limit);
                b = middle;
            }
        }
    }

    fn partition(&mut self, a: usize, b: usize, pivot: usize) -> (usize, bool) {
        self.items.swap(a, pivot);
        let (mut i, mut j) = (a + 1, b - 1);
        while i <= j && self.less(i, a) {
            i += 1;
        }
        while i <= j && !self.less(j, a) {
            j -= 1;
        }
        if i > j {
            self.items.swap(j, a);
            return (j, true);
        }
        self.items.swap(i, j);
        i += 1;
        j -= 1;
        loop {
            while i <= j && self.less(i, a) {
                i += 1;
            }
            while i <= j && !self.less(j, a) {
                j -= 1;
            }
            if i > j {
                break;
            }
            self.items.swap(i, j);
            i += 1;
            j -= 1;
        }
        self.items.swap(j, a);
        (j, false)
    }

    fn partition_equal(&mut self, a: usize, b: usize, pivot: usize) -> usize {
        self.items.swap(a, pivot);
        let (mut i, mut j) = (a + 1, b - 1);
        loop {
            while i <= j && !self.less(a, i) {
                i += 1;
            }
            while i <= j && self.less(a, j) {
                j -= 1;
            }
            if i > j {
                return i;
            }
            self.items.swap(i, j);
            i += 1;
            j -= 1;
        }
    }

    /// Whether few swaps were enough to sort what was nearly in order.
    fn nearly_sorted(&mut self, a: usize, b: usize) -> bool {
        const STEPS: usize = 5;
        const SHORTEST_SHIFTED: usize = 50;
        let mut i = a + 1;
        for _ in 0..STEPS {
            while i < b && !self.less(i, i - 1) {
                i += 1;
            }
            if i == b {
                return true;
            }
            if b - a < SHORTEST_SHIFTED {
                return false;
            }
            self.items.swap(i, i - 1);
            if i - a >= 2 {
                for j in (1..i).rev() {
                    if !self.less(j, j - 1) {
                        break;
                    }
                    self.items.swap(j, j - 1);
                }
            }
            if b - i >= 2 {
                for j in i + 1..b {
                    if !self.less(j, j - 1) {
                        break;
                    }
                    self.items.swap(j, j - 1);
                }
            }
        }
        false
    }

    /// Swaps three elements in the middle with ones that a fixed generator chooses.
    fn break_patterns(&mut self, a: usize, b: usize) {
        let length = b - a;
        if length < 8 {
            return;
        }
        let mut random = length as u64;
        let modulus = 1_u64 << (usize::BITS - length.leading_zeros());
        let middle = a + (length / 4) * 2 - 1;
        for i in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let mut other = (random & (modulus - 1)) as usize;
            if other >= length {
                other -= length;
            }
            self.items.swap(middle + i, a + other);
        }
    }

    fn choose_pivot(&self, a: usize, b: usize) -> (usize, Hint) {
        const FOR_NINTHER: usize = 50;
        const MOST_SWAPS: usize = 4 * 3;
        let length = b - a;
        let mut swaps = 0;
        let quarter = length / 4;
        let (mut i, mut j, mut k) = (a + quarter, a + quarter * 2, a + quarter * 3);
        if length >= 8 {
            if length >= FOR_NINTHER {
                i = self.median(i - 1, i, i + 1, &mut swaps);
                j = self.median(j - 1, j, j + 1, &mut swaps);
                k = self.median(k - 1, k, k + 1, &mut swaps);
            }
            j = self.median(i, j, k, &mut swaps);
        }
        match swaps {
            0 => (j, Hint::Increasing),
            MOST_SWAPS => (j, Hint::Decreasing),
            _ => (j, Hint::Unknown),
        }
    }

    fn median(&self, a: usize, b: usize, c: usize, swaps: &mut usize) -> usize {
        let mut ordered = |a: usize, b: usize| {
            if self.less(b, a) {
                *swaps += 1;
                (b, a)
            } else {
                (a, b)
            }
        };
        let (a, b) = ordered(a, b);
        let (b, _) = ordered(b, c);
        let (_, b) = ordered(a, b);
        b
    }

    fn heap(&mut self, first: usize, b: usize) {
        let length = b - first;
        for i in (0..=(length - 1) / 2).rev() {
            self.sift_down(i, length, first);
        }
        for i in (0..length).rev() {
            self.items.swap(first, first + i);
            self.sift_down(0, i, first);
        }
    }

    fn sift_down(&mut self, low: usize, high: usize, first: usize) {
        let mut root = low;
        loop {
            let mut child = 2 * root + 1;
            if child >= high {
                return;
            }
            if child + 1 < high && self.less(first + child, first + child + 1) {
                child += 1;
            }
            if !self.less(first + root, first + child) {
                return;
            }
            self.items.swap(first + root, first + child);
            root = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_beginning_the_end_is_sorted() {
        for length in [0_u64, 1, 5, 12, 13, 49, 50, 51, 200, 1000] {
            let shuffled: Vec<u64> = (0..length).map(|i| i.wrapping_mul(7919) % 211).collect();
            let patterns = [
                shuffled.clone(),
                (0..length).collect(),
                (0..length).rev().collect(),
                (0..length).map(|i| i % 3).collect(),
                (0..length).map(|i| i.abs_diff(length / 2)).collect(),
            ];
            for pattern in patterns {
                let mut seen = pattern.clone();
                sort(&mut seen, |a, b| a < b);
                let mut expected = pattern;
                expected.sort_unstable();
                assert_eq!(seen, expected, "length {length}");
            }
        }
    }

    #[test]
    fn what_no_comparison_orders_stands_where_go_leaves_it() {
        // Recorded from `sort.Slice` with the comparison of `istioctl proxy-config route`.
        let mut names = [
            "15010", "15014", "80", "8080", "8081", "8082", "8083", "8099", "east", "ingress", "a",
            "a", "b", "b", "", "",
        ];
        let number = |name: &str| name.parse::<u32>().ok();
        sort(&mut names, |a, b| match (number(a), number(b)) {
            (Some(a), Some(b)) => a < b,
            _ => false,
        });
        let go = [
            "east", "ingress", "80", "8080", "8081", "8082", "15014", "8083", "15010", "8099", "a",
            "a", "b", "b", "", "",
        ];
        assert_eq!(names, go);
    }

    #[test]
    fn equal_elements_change_places_only_in_long_slices() {
        let order = |length: usize| {
            let mut items: Vec<(u8, usize)> = (0..length).map(|i| ((i % 2) as u8, i)).collect();
            sort(&mut items, |a, b| a.0 < b.0);
            items
        };
        let short = order(SHORT);
        assert!(short.windows(2).all(|pair| pair[0] < pair[1]), "{short:?}");
        let long = order(100);
        assert!(long.windows(2).any(|pair| pair[0] > pair[1]), "{long:?}");
    }
}
