//! From tokens to a tree, macros expanded. Syntax errors are worded as the parser of cel-go words them, as far as the first
//! one goes.

use super::lexer::{Lexeme, Token, lex};
use super::types::KEYWORDS;
use super::value::Value;
use super::{Expression, Mistake, report};
use std::sync::Arc;

/// A part of an expression and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub at: usize,
    pub kind: Kind,
}

/// What the macros over lists and maps ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fold {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Value),
    Name(Arc<str>),
    /// `target.field`; `test` for `has(target.field)`; `optional` for `target.?field`.
    Select {
        target: Box<Node>,
        field: Arc<str>,
        test: bool,
        optional: bool,
    },
    Call {
        function: Arc<str>,
        target: Option<Box<Node>>,
        args: Vec<Node>,
    },
    /// Entries; true for `?entry`.
    List(Vec<(bool, Node)>),
    Map(Vec<(bool, Node, Node)>),
    /// `range.all(name, body)`; `filter` is the second argument of a map with three.
    Fold {
        fold: Fold,
        range: Box<Node>,
        name: Arc<str>,
        filter: Option<Box<Node>>,
        body: Box<Node>,
    },
    /// `cel.bind(name, value, body)`.
    Bind {
        name: Arc<str>,
        value: Box<Node>,
        body: Box<Node>,
    },
    /// `target.optMap(name, body)`; `flat` for `optFlatMap`.
    OptMap {
        target: Box<Node>,
        name: Arc<str>,
        body: Box<Node>,
        flat: bool,
    },
}

const STARTS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

const DEEPEST: usize = 80;

/// cel-go tells no more.
const MOST_MISTAKES: usize = 100;

/// Parses an expression.
///
/// # Errors
/// The syntax errors with their places: `ERROR: <input>:1:5: Syntax error: ...`.
pub fn parse(source: &str) -> Result<Expression, String> {
    let (tokens, mistakes) = lex(source);
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
        mistakes,
        passed_over: None,
    };
    let parsed = parser.expression().and_then(|root| {
        let rest = parser.peek();
        if rest.token == Token::End {
            return Ok(root);
        }
        let last = parser
            .tokens
            .get(parser.next + 1)
            .is_some_and(|t| t.token == Token::End);
        let what = if last { "extraneous" } else { "mismatched" };
        Err(Mistake {
            at: rest.at,
            what: format!("Syntax error: {what} input '{}' expecting <EOF>", rest.text),
        })
    });
    match parsed {
        Ok(root) if parser.mistakes.is_empty() => {
            return Ok(Expression {
                source: source.to_string(),
                root,
            });
        }
        Ok(_) => {}
        // Nothing is said of a place that is passed over until something fits again.
        Err(_) if parser.passed_over == Some(parser.next) => {}
        Err(mistake) => parser.mistakes.push(mistake),
    }
    parser.mistakes.sort_by_key(|m| m.at);
    if let Some(mistake) = parser.mistakes.get_mut(MOST_MISTAKES) {
        mistake.what = format!("Syntax error: More than {MOST_MISTAKES} syntax errors");
        parser.mistakes.truncate(MOST_MISTAKES + 1);
    }
    Err(report(source, &parser.mistakes))
}

type Parsed<T = Node> = Result<T, Mistake>;

struct Parser {
    tokens: Vec<Lexeme>,
    next: usize,
    depth: usize,
    mistakes: Vec<Mistake>,
    /// Where a value was missing and no token has been taken since.
    passed_over: Option<usize>,
}

fn node(at: usize, kind: Kind) -> Node {
    Node { at, kind }
}

fn call(at: usize, function: &str, args: Vec<Node>) -> Node {
    node(
        at,
        Kind::Call {
            function: function.into(),
            target: None,
            args,
        },
    )
}

impl Parser {
    fn peek(&self) -> Lexeme {
        self.tokens[self.next.min(self.tokens.len() - 1)].clone()
    }

    fn sign(&self) -> &'static str {
        match self.tokens[self.next].token {
            Token::Sign(sign) => sign,
            _ => "",
        }
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.sign() == sign && !sign.is_empty();
        if found {
            self.next += 1;
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.take(sign) {
            return Ok(());
        }
        let found = self.peek();
        let what = if found.token == Token::End {
            format!("Syntax error: missing '{sign}' at '<EOF>'")
        } else {
            format!(
                "Syntax error: mismatched input '{}' expecting '{sign}'",
                found.text
            )
        };
        Err(Mistake { at: found.at, what })
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.too_deep());
        }
        let result = self.conditional();
        self.depth -= 1;
        result
    }

    fn conditional(&mut self) -> Parsed {
        let condition = self.binary(0)?;
        let at = self.peek().at;
        if !self.take("?") {
            return Ok(condition);
        }
        let yes = self.binary(0)?;
        self.expect(":")?;
        let no = self.expression()?;
        Ok(call(at, "_?_:_", vec![condition, yes, no]))
    }

    /// The operators of a level and, through recursion, of those that bind tighter.
    fn binary(&mut self, level: usize) -> Parsed {
        const LEVELS: [&[(&str, &str)]; 5] = [
            &[("||", "_||_")],
            &[("&&", "_&&_")],
            &[
                ("<=", "_<=_"),
                ("<", "_<_"),
                (">=", "_>=_"),
                (">", "_>_"),
                ("==", "_==_"),
                ("!=", "_!=_"),
                ("in", "@in"),
            ],
            &[("+", "_+_"), ("-", "_-_")],
            &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
        ];
        if level == LEVELS.len() {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        let mut length = 0;
        loop {
            self.bound(&mut length)?;
            let lexeme = self.peek();
            let found = LEVELS[level].iter().find(|(text, _)| *text == lexeme.text);
            let Some((_, function)) = found.filter(|_| !matches!(lexeme.token, Token::Text(_)))
            else {
                return Ok(left);
            };
            self.next += 1;
            let right = self.binary(level + 1)?;
            left = call(lexeme.at, function, vec![left, right]);
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.peek().at;
        if self.take("!") {
            let operand = self.unary_operand()?;
            return Ok(call(at, "!_", vec![operand]));
        }
        if self.sign() != "-" {
            return self.member();
        }
        self.next += 1;
        // A number takes its sign.
        let lexeme = self.peek();
        match lexeme.token {
            Token::Int(value) => {
                self.next += 1;
                let literal = node(at, Kind::Literal(Value::Int(value.wrapping_neg())));
                self.members(literal)
            }
            Token::Float(value) => {
                self.next += 1;
                let literal = node(at, Kind::Literal(Value::Double(-value)));
                self.members(literal)
            }
            _ => {
                let operand = self.unary_operand()?;
                Ok(call(at, "-_", vec![operand]))
            }
        }
    }

    /// Chains become as deep a tree as nesting does.
    fn bound(&self, length: &mut usize) -> Parsed<()> {
        *length += 1;
        if *length <= 3 * DEEPEST {
            return Ok(());
        }
        Err(self.too_deep())
    }

    fn too_deep(&self) -> Mistake {
        Mistake {
            at: self.peek().at,
            what: format!("expression recursion limit exceeded: {DEEPEST}"),
        }
    }

    fn unary_operand(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.too_deep());
        }
        let result = self.unary();
        self.depth -= 1;
        result
    }

    fn member(&mut self) -> Parsed {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut target: Node) -> Parsed {
        let mut length = 0;
        loop {
            self.bound(&mut length)?;
            let at = self.peek().at;
            if self.take(".") {
                let optional = self.take("?");
                let name = self.peek();
                let Token::Name(field) = name.token else {
                    return Err(Mistake {
                        at: name.at,
                        what: format!(
                            "Syntax error: no viable alternative at input '.{}'",
                            if name.text == "<EOF>" { "" } else { &name.text }
                        ),
                    });
                };
                self.next += 1;
                let open = self.peek().at;
                target = if !optional && self.take("(") {
                    let args = self.list(")")?;
                    member_call(open, target, &field, args)?
                } else {
                    node(
                        at,
                        Kind::Select {
                            target: Box::new(target),
                            field: field.into(),
                            test: false,
                            optional,
                        },
                    )
                };
            } else if self.take("[") {
                let optional = self.take("?");
                let index = self.expression()?;
                self.expect("]")?;
                let function = if optional { "_[?_]" } else { "_[_]" };
                target = call(at, function, vec![target, index]);
            } else {
                return Ok(target);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let lexeme = self.peek();
        let at = lexeme.at;
        self.next += 1;
        match lexeme.token {
            Token::Int(i64::MIN) => Err(Mistake {
                at,
                what: "invalid int literal".into(),
            }),
            Token::Int(value) => Ok(node(at, Kind::Literal(Value::Int(value)))),
            Token::Uint(value) => Ok(node(at, Kind::Literal(Value::Uint(value)))),
            Token::Float(value) => Ok(node(at, Kind::Literal(Value::Double(value)))),
            Token::Text(value) => Ok(node(at, Kind::Literal(Value::String(value.into())))),
            Token::Bytes(value) => Ok(node(at, Kind::Literal(Value::Bytes(value.into())))),
            Token::Name(ref name) if name == "in" => self.unfit(&lexeme),
            Token::Name(name) => self.name(at, &name),
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                let mut entries = Vec::new();
                while !self.take("]") {
                    let optional = self.take("?");
                    entries.push((optional, self.expression()?));
                    if !self.take(",") {
                        self.expect("]")?;
                        break;
                    }
                }
                Ok(node(at, Kind::List(entries)))
            }
            Token::Sign("{") => {
                let mut entries = Vec::new();
                while !self.take("}") {
                    let optional = self.take("?");
                    let key = self.expression()?;
                    self.expect(":")?;
                    entries.push((optional, key, self.expression()?));
                    if !self.take(",") {
                        self.expect("}")?;
                        break;
                    }
                }
                Ok(node(at, Kind::Map(entries)))
            }
            Token::Sign(".") => self.primary(),
            Token::Sign(_) | Token::End => self.unfit(&lexeme),
        }
    }

    /// A token that begins no value, which has been taken. As cel-go's parser does, one that stands before a value is left out; else
    /// the value is taken for given, up to what may follow one.
    fn unfit(&mut self, lexeme: &Lexeme) -> Parsed {
        const FOLLOWS: [&str; 23] = [
            "||", "&&", "<=", "<", ">=", ">", "==", "!=", "in", "+", "-", "*", "/", "%", "?", ":",
            ")", "]", "}", ",", ".", "[", "<EOF>",
        ];
        let begins = |lexeme: &Lexeme| match &lexeme.token {
            Token::Sign(sign) => ["[", "{", "(", ".", "-", "!"].contains(sign),
            Token::Name(name) => name != "in",
            token => *token != Token::End,
        };
        let extraneous = lexeme.token != Token::End && begins(&self.peek());
        let kind = if extraneous {
            "extraneous"
        } else {
            "mismatched"
        };
        self.mistakes.push(Mistake {
            at: lexeme.at,
            what: format!(
                "Syntax error: {kind} input '{}' expecting {STARTS}",
                lexeme.text
            ),
        });
        if extraneous {
            return self.unary();
        }
        self.next -= 1;
        while !FOLLOWS.contains(&self.peek().text.as_str()) {
            self.next += 1;
        }
        self.passed_over = Some(self.next);
        Ok(node(lexeme.at, Kind::Literal(Value::Null)))
    }

    fn name(&mut self, at: usize, name: &str) -> Parsed {
        match name {
            "true" => return Ok(node(at, Kind::Literal(Value::Bool(true)))),
            "false" => return Ok(node(at, Kind::Literal(Value::Bool(false)))),
            "null" => return Ok(node(at, Kind::Literal(Value::Null))),
            name if KEYWORDS.contains(&name) => {
                return Err(Mistake {
                    at,
                    what: format!("reserved identifier: {name}"),
                });
            }
            _ => {}
        }
        let open = self.peek().at;
        if !self.take("(") {
            return Ok(node(at, Kind::Name(name.into())));
        }
        let args = self.list(")")?;
        if name != "has" {
            return Ok(call(open, name, args));
        }
        let wrong = || Mistake {
            at: open,
            what: "invalid argument to has() macro".into(),
        };
        let [only] = <[Node; 1]>::try_from(args).map_err(|_| wrong())?;
        match only.kind {
            Kind::Select {
                target,
                field,
                optional: false,
                ..
            } => Ok(node(
                open,
                Kind::Select {
                    target,
                    field,
                    test: true,
                    optional: false,
                },
            )),
            _ => Err(wrong()),
        }
    }

    fn list(&mut self, close: &str) -> Parsed<Vec<Node>> {
        let mut out = Vec::new();
        if self.take(close) {
            return Ok(out);
        }
        loop {
            out.push(self.expression()?);
            if !self.take(",") {
                self.expect(close)?;
                return Ok(out);
            }
        }
    }
}

/// A call on a target: a macro, or a function.
fn member_call(at: usize, target: Node, function: &str, mut args: Vec<Node>) -> Parsed {
    let variable = |node: &Node, macro_name: &str| match &node.kind {
        Kind::Name(name) => Ok(name.clone()),
        _ => Err(Mistake {
            at: node.at,
            what: match macro_name {
                "bind" => "cel.bind() variable names must be simple identifiers".into(),
                "optMap" => "optMap() variable name must be a simple identifier".into(),
                "optFlatMap" => "optFlatMap() variable name must be a simple identifier".into(),
                _ => "argument must be a simple name".into(),
            },
        }),
    };
    let fold = match (function, args.len()) {
        ("all", 2) => Some(Fold::All),
        ("exists", 2) => Some(Fold::Exists),
        ("exists_one" | "existsOne", 2) => Some(Fold::ExistsOne),
        ("map", 2 | 3) => Some(Fold::Map),
        ("filter", 2) => Some(Fold::Filter),
        _ => None,
    };
    if let Some(fold) = fold {
        let name = variable(&args[0], function)?;
        let body = Box::new(
            args.pop()
                .unwrap_or_else(|| node(at, Kind::Literal(Value::Null))),
        );
        let filter = (args.len() == 2)
            .then(|| args.pop().map(Box::new))
            .flatten();
        return Ok(node(
            at,
            Kind::Fold {
                fold,
                range: Box::new(target),
                name,
                filter,
                body,
            },
        ));
    }
    if matches!(function, "optMap" | "optFlatMap") && args.len() == 2 {
        let name = variable(&args[0], function)?;
        let body = args.swap_remove(1);
        return Ok(node(
            at,
            Kind::OptMap {
                target: Box::new(target),
                name,
                body: Box::new(body),
                flat: function == "optFlatMap",
            },
        ));
    }
    if let Kind::Name(namespace) = &target.kind {
        if &**namespace == "cel" && function == "bind" && args.len() == 3 {
            let name = variable(&args[0], "bind")?;
            let body = Box::new(args.swap_remove(2));
            let value = Box::new(args.swap_remove(1));
            return Ok(node(at, Kind::Bind { name, value, body }));
        }
        // Functions with a namespace: they have no target.
        let full = format!("{namespace}.{function}");
        if super::signatures::is_function(&full) {
            return Ok(call(at, &full, args));
        }
    }
    Ok(node(
        at,
        Kind::Call {
            function: function.into(),
            target: Some(Box::new(target)),
            args,
        },
    ))
}

impl Expression {
    /// Does the expression read an outer variable of this name?
    pub fn mentions(&self, name: &str) -> bool {
        mentions(&self.root, name)
    }
}

fn mentions(node: &Node, name: &str) -> bool {
    let any = |nodes: Vec<&Node>| nodes.into_iter().any(|n| mentions(n, name));
    match &node.kind {
        Kind::Literal(_) => false,
        Kind::Name(own) => &**own == name,
        Kind::Select { target, .. } => mentions(target, name),
        Kind::Call { target, args, .. } => any(target.as_deref().into_iter().chain(args).collect()),
        Kind::List(entries) => any(entries.iter().map(|(_, n)| n).collect()),
        Kind::Map(entries) => any(entries.iter().flat_map(|(_, k, v)| [k, v]).collect()),
        Kind::Fold {
            range,
            filter,
            body,
            ..
        } => any([&**range, &**body]
            .into_iter()
            .chain(filter.as_deref())
            .collect()),
        Kind::Bind { value, body, .. } => any(vec![value, body]),
        Kind::OptMap { target, body, .. } => any(vec![target, body]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_mistakes_a_hundred_are_told() {
        let told = parse(&"a & ".repeat(3000)).unwrap_err();
        assert_eq!(told.matches("ERROR: ").count(), 101);
        assert!(told.contains("Syntax error: More than 100 syntax errors"));
    }

    #[test]
    fn syntax_errors_are_those_of_cel_go() {
        assert_eq!(
            parse("response.code >= ").unwrap_err(),
            format!(
                "ERROR: <input>:1:18: Syntax error: mismatched input '<EOF>' expecting {STARTS}\n | response.code >= \n | .................^"
            )
        );
        assert_eq!(
            parse("a b").unwrap_err(),
            "ERROR: <input>:1:3: Syntax error: extraneous input 'b' expecting <EOF>\n | a b\n | ..^"
        );
        assert!(
            parse("a = b")
                .unwrap_err()
                .contains("token recognition error at: '= '")
        );
    }

    #[test]
    fn what_parses() {
        for text in [
            "self.all(x, x > 0) && !has(self.a.b)",
            r#"r'\d+' + "a\n" + '''x'y'''"#,
            "-9223372036854775808 < 0",
            "[1, ?optional.none()] + {'a': 1, ?'b': optional.of(2)}['a']",
            "a ? b : c ? d : e",
            "x in [1u, 0x1F, 1.5e3, b'\\xff']",
            "cel.bind(v, 1, v + 1) == 2 // comment",
            "a.?b.orValue(1)[?0]",
        ] {
            parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(parse(&"(".repeat(100_000)).is_err());
        assert!(parse(&format!("{}1", "-".repeat(100_000))).is_err());
        assert!(parse(&"!".repeat(100_000)).is_err());
    }
}
