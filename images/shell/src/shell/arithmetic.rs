//! `$((…))`: whole numbers of 64 bits.

/// Where variables are.
pub trait Variables {
    fn get(&self, name: &str) -> Option<String>;
    fn set(&mut self, name: &str, value: i64) -> Result<(), String>;
}

/// The value of an expression.
pub fn evaluate(text: &str, variables: &mut dyn Variables) -> Result<i64, String> {
    let mut reader = Reader {
        chars: text.chars().collect(),
        at: 0,
        variables,
        depth: 0,
        silent: 0,
    };
    reader.blanks();
    if reader.at == reader.chars.len() {
        return Ok(0);
    }
    let value = reader.assignment()?;
    reader.blanks();
    if reader.at < reader.chars.len() {
        return Err("arithmetic syntax error".into());
    }
    Ok(value)
}

struct Reader<'a> {
    chars: Vec<char>,
    at: usize,
    variables: &'a mut dyn Variables,
    depth: usize,
    /// Within a side that does not count (`0 && x = 1`): nothing is assigned or divided.
    silent: usize,
}

/// Operators with two sides, from the loosest; longer ones before their beginnings.
const LEVELS: [&[&str]; 8] = [
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

impl Reader<'_> {
    fn blanks(&mut self) {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
    }

    fn starts(&self, text: &str) -> bool {
        text.chars()
            .enumerate()
            .all(|(index, c)| self.chars.get(self.at + index) == Some(&c))
    }

    fn take(&mut self, text: &str) -> bool {
        self.blanks();
        let found = self.starts(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn name(&mut self) -> String {
        self.blanks();
        let rest = &self.chars[self.at..];
        let length = match rest.first() {
            Some(c) if *c == '_' || c.is_ascii_alphabetic() => rest
                .iter()
                .take_while(|c| **c == '_' || c.is_ascii_alphanumeric())
                .count(),
            _ => 0,
        };
        rest[..length].iter().collect()
    }

    fn assignment(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > 100 {
            return Err("expression is nested too deeply".into());
        }
        let name = self.name();
        let start = self.at;
        if !name.is_empty() {
            self.at += name.len();
            self.blanks();
            for operator in [
                "=", "+=", "-=", "*=", "/=", "%=", "<<=", ">>=", "&=", "^=", "|=",
            ] {
                if !self.starts(operator) || (operator == "=" && self.starts("==")) {
                    continue;
                }
                self.at += operator.len();
                let right = self.assignment()?;
                let value = match operator.trim_end_matches('=') {
                    "" => right,
                    operator => self.apply(operator, self.value_of(&name)?, right)?,
                };
                if self.silent == 0 {
                    self.variables.set(&name, value)?;
                }
                self.depth -= 1;
                return Ok(value);
            }
            self.at = start;
        }
        let value = self.condition()?;
        self.depth -= 1;
        Ok(value)
    }

    fn condition(&mut self) -> Result<i64, String> {
        let chosen = self.either()?;
        if !self.take("?") {
            return Ok(chosen);
        }
        let yes = self.side(chosen == 0, Self::assignment)?;
        if !self.take(":") {
            return Err("arithmetic syntax error: expecting ':'".into());
        }
        let no = self.side(chosen != 0, Self::condition)?;
        Ok(if chosen != 0 { yes } else { no })
    }

    fn side(
        &mut self,
        silent: bool,
        inner: fn(&mut Self) -> Result<i64, String>,
    ) -> Result<i64, String> {
        self.silent += usize::from(silent);
        let value = inner(self);
        self.silent -= usize::from(silent);
        value
    }

    fn either(&mut self) -> Result<i64, String> {
        let mut value = self.both()?;
        while self.take("||") {
            let right = self.side(value != 0, Self::both)?;
            value = i64::from(value != 0 || right != 0);
        }
        Ok(value)
    }

    fn both(&mut self) -> Result<i64, String> {
        let mut value = self.level(0)?;
        while self.take("&&") {
            let right = self.side(value == 0, |reader| reader.level(0))?;
            value = i64::from(value != 0 && right != 0);
        }
        Ok(value)
    }

    fn level(&mut self, level: usize) -> Result<i64, String> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut value = self.level(level + 1)?;
        'more: loop {
            self.blanks();
            for operator in *operators {
                if !self.starts(operator) || self.belongs_to_longer(operator) {
                    continue;
                }
                self.at += operator.len();
                let right = self.level(level + 1)?;
                value = self.apply(operator, value, right)?;
                continue 'more;
            }
            return Ok(value);
        }
    }

    fn belongs_to_longer(&self, operator: &str) -> bool {
        let next = self.chars.get(self.at + operator.len()).copied();
        match operator {
            "|" => next == Some('|'),
            "&" => next == Some('&'),
            "<" => next == Some('<'),
            ">" => next == Some('>'),
            _ => false,
        }
    }

    fn apply(&self, operator: &str, left: i64, right: i64) -> Result<i64, String> {
        Ok(match operator {
            "|" => left | right,
            "^" => left ^ right,
            "&" => left & right,
            "==" => i64::from(left == right),
            "!=" => i64::from(left != right),
            "<=" => i64::from(left <= right),
            ">=" => i64::from(left >= right),
            "<" => i64::from(left < right),
            ">" => i64::from(left > right),
            "<<" => left.wrapping_shl(right as u32),
            ">>" => left.wrapping_shr(right as u32),
            "+" => left.wrapping_add(right),
            "-" => left.wrapping_sub(right),
            "*" => left.wrapping_mul(right),
            _ if right == 0 && self.silent > 0 => 0,
            _ if right == 0 => return Err("divide by zero".into()),
            "/" => left.wrapping_div(right),
            _ => left.wrapping_rem(right),
        })
    }

    fn unary(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > 100 {
            return Err("expression is nested too deeply".into());
        }
        self.blanks();
        let value = if self.starts("!=") {
            return Err("arithmetic syntax error".into());
        } else if self.take("!") {
            i64::from(self.unary()? == 0)
        } else if self.take("~") {
            !self.unary()?
        } else if self.take("-") {
            self.unary()?.wrapping_neg()
        } else if self.take("+") {
            self.unary()?
        } else if self.take("(") {
            let value = self.assignment()?;
            if !self.take(")") {
                return Err("arithmetic syntax error: expecting ')'".into());
            }
            value
        } else {
            self.operand()?
        };
        self.depth -= 1;
        Ok(value)
    }

    fn operand(&mut self) -> Result<i64, String> {
        let name = self.name();
        if !name.is_empty() {
            self.at += name.len();
            return self.value_of(&name);
        }
        let digits: String = self.chars[self.at..]
            .iter()
            .take_while(|c| c.is_ascii_alphanumeric())
            .collect();
        self.at += digits.len();
        number(&digits).ok_or_else(|| "arithmetic syntax error".into())
    }

    fn value_of(&self, name: &str) -> Result<i64, String> {
        let text = self.variables.get(name).unwrap_or_default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(0);
        }
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let value = number(digits).ok_or_else(|| format!("{name}: not a number: {text}"))?;
        Ok(value.wrapping_mul(sign))
    }
}

fn number(digits: &str) -> Option<i64> {
    if let Some(hex) = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        return i64::from_str_radix(hex, 16).ok();
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return i64::from_str_radix(digits, 8).ok();
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    impl Variables for HashMap<String, String> {
        fn get(&self, name: &str) -> Option<String> {
            HashMap::get(self, name).cloned()
        }
        fn set(&mut self, name: &str, value: i64) -> Result<(), String> {
            self.insert(name.into(), value.to_string());
            Ok(())
        }
    }

    #[test]
    fn expressions() {
        let mut variables = HashMap::from([("a".to_owned(), "5".to_owned())]);
        for (text, expected) in [
            ("1 + 2 * 3", Ok(7)),
            ("(1+2)*3", Ok(9)),
            ("a * a - 1", Ok(24)),
            ("b = a + 1, 0", Err(())),
            ("b = a + 1", Ok(6)),
            ("b += 2", Ok(8)),
            ("-7 / 2", Ok(-3)),
            ("7 % 3", Ok(1)),
            ("1 < 2 && 2 <= 1 || 3 == 3", Ok(1)),
            ("a > 3 ? 10 : 20", Ok(10)),
            ("0 && (c = 1)", Ok(0)),
            ("c", Ok(0)),
            ("0x1f + 010", Ok(39)),
            ("!0 + ~0", Ok(0)),
            ("1 << 4 | 1", Ok(17)),
            ("1 / 0", Err(())),
            ("1 +", Err(())),
            ("", Ok(0)),
        ] {
            let result = evaluate(text, &mut variables).map_err(|_| ());
            assert_eq!(result, expected, "{text}");
        }
    }
}
