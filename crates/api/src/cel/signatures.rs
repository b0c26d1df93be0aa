//! The functions and operators: names and types. A line of the table: the name, then forms, each `target . arguments -> result`.

use super::types::Type;
use std::collections::HashMap;
use std::sync::LazyLock;

/// One form of a function.
#[derive(Debug)]
pub(super) struct Form {
    /// Called on a target, which is the first of the types.
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
}

const TABLE: &str = "
_?_:_      bool, A, A -> A
_&&_       bool, bool -> bool
_||_       bool, bool -> bool
!_         bool -> bool
-_         int -> int | double -> double
_==_       A, A -> bool
_!=_       A, A -> bool
_<_        @ordered
_<=_       @ordered
_>_        @ordered
_>=_       @ordered
_+_        int, int -> int | uint, uint -> uint | double, double -> double | string, string -> string | bytes, bytes -> bytes | list(A), list(A) -> list(A) | duration, duration -> duration | timestamp, duration -> timestamp | duration, timestamp -> timestamp
_-_        int, int -> int | uint, uint -> uint | double, double -> double | duration, duration -> duration | timestamp, duration -> timestamp | timestamp, timestamp -> duration
_*_        int, int -> int | uint, uint -> uint | double, double -> double
_/_        int, int -> int | uint, uint -> uint | double, double -> double
_%_        int, int -> int | uint, uint -> uint
@in        A, list(A) -> bool | A, map(A, B) -> bool
_[_]       list(A), int -> A | map(A, B), A -> B | optional(list(A)), int -> optional(A) | optional(map(A, B)), A -> optional(B)
_[?_]      list(A), int -> optional(A) | map(A, B), A -> optional(B) | optional(list(A)), int -> optional(A) | optional(map(A, B)), A -> optional(B)
size       string -> int | bytes -> int | list(A) -> int | map(A, B) -> int | string . -> int | bytes . -> int | list(A) . -> int | map(A, B) . -> int
int        int -> int | uint -> int | double -> int | string -> int | timestamp -> int | duration -> int
uint       uint -> uint | int -> uint | double -> uint | string -> uint
double     double -> double | int -> double | uint -> double | string -> double
bool       bool -> bool | string -> bool
string     string -> string | bool -> string | int -> string | uint -> string | double -> string | bytes -> string | timestamp -> string | duration -> string | ip -> string | cidr -> string
bytes      bytes -> bytes | string -> bytes
timestamp  timestamp -> timestamp | string -> timestamp | int -> timestamp
duration   duration -> duration | string -> duration | int -> duration
dyn        A -> dyn
type       A -> type
contains   string . string -> bool
startsWith string . string -> bool
endsWith   string . string -> bool
matches    string . string -> bool | string, string -> bool
find       string . string -> string
findAll    string . string -> list(string) | string . string, int -> list(string)
charAt     string . int -> string
indexOf    string . string -> int | string . string, int -> int | list(A) . A -> int
lastIndexOf string . string -> int | string . string, int -> int | list(A) . A -> int
lowerAscii string . -> string
upperAscii string . -> string
trim       string . -> string
replace    string . string, string -> string | string . string, string, int -> string
split      string . string -> list(string) | string . string, int -> list(string)
substring  string . int -> string | string . int, int -> string
join       list(string) . -> string | list(string) . string -> string
format     string . list(dyn) -> string
strings.quote string -> string
isSorted   list(A) . -> bool
sum        list(A) . -> A
min        list(A) . -> A
max        list(A) . -> A
sets.contains    list(A), list(A) -> bool
sets.equivalent  list(A), list(A) -> bool
sets.intersects  list(A), list(A) -> bool
url        string -> url
isURL      string -> bool
getScheme  url . -> string
getHost    url . -> string
getHostname url . -> string
getPort    url . -> string
getEscapedPath url . -> string
getQuery   url . -> map(string, list(string))
quantity   string -> quantity
isQuantity string -> bool
isInteger  quantity . -> bool
asInteger  quantity . -> int
asApproximateFloat quantity . -> double
sign       quantity . -> int
add        quantity . quantity -> quantity | quantity . int -> quantity
sub        quantity . quantity -> quantity | quantity . int -> quantity
isLessThan quantity . quantity -> bool
isGreaterThan quantity . quantity -> bool
compareTo  quantity . quantity -> int
ip         string -> ip | cidr . -> ip
isIP       string -> bool
ip.isCanonical string -> bool
family     ip . -> int
isUnspecified ip . -> bool
isLoopback ip . -> bool
isLinkLocalMulticast ip . -> bool
isLinkLocalUnicast ip . -> bool
isGlobalUnicast ip . -> bool
cidr       string -> cidr
isCIDR     string -> bool
containsIP cidr . ip -> bool | cidr . string -> bool
containsCIDR cidr . cidr -> bool | cidr . string -> bool
masked     cidr . -> cidr
prefixLength cidr . -> int
format.named string -> optional(format)
format.dns1123Label -> format
format.dns1123Subdomain -> format
format.dns1035Label -> format
format.qualifiedName -> format
format.dns1123LabelPrefix -> format
format.dns1123SubdomainPrefix -> format
format.dns1035LabelPrefix -> format
format.labelValue -> format
format.uri -> format
format.uuid -> format
format.byte -> format
format.date -> format
format.datetime -> format
validate   format . string -> optional(list(string))
optional.of A -> optional(A)
optional.ofNonZeroValue A -> optional(A)
optional.none -> optional(A)
hasValue   optional(A) . -> bool
value      optional(A) . -> A
or         optional(A) . optional(A) -> optional(A)
orValue    optional(A) . A -> A
getFullYear     @time
getMonth        @time
getDate         @time
getDayOfMonth   @time
getDayOfWeek    @time
getDayOfYear    @time
getHours        @time | duration . -> int
getMinutes      @time | duration . -> int
getSeconds      @time | duration . -> int
getMilliseconds @time | duration . -> int
";

const ORDERED: [&str; 8] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "timestamp",
    "duration",
];

static FORMS: LazyLock<HashMap<&'static str, Vec<Form>>> = LazyLock::new(|| {
    let mut out: HashMap<_, Vec<Form>> = HashMap::new();
    for line in TABLE.lines().filter(|line| !line.is_empty()) {
        let (name, forms) = line.split_once(' ').unwrap_or((line, ""));
        let entry = out.entry(name).or_default();
        for form in forms.split('|').map(str::trim) {
            match form {
                "@ordered" => {
                    entry.extend(ORDERED.iter().map(|t| parse(&format!("{t}, {t} -> bool"))));
                    let numbers = ["int", "uint", "double"];
                    for a in numbers {
                        for b in numbers.iter().filter(|b| **b != a) {
                            entry.push(parse(&format!("{a}, {b} -> bool")));
                        }
                    }
                }
                "@time" => {
                    entry.push(parse("timestamp . -> int"));
                    entry.push(parse("timestamp . string -> int"));
                }
                form => entry.push(parse(form)),
            }
        }
    }
    out
});

fn parse(form: &str) -> Form {
    let (left, result) = form.split_once("->").unwrap_or(("", form));
    let (target, args) = match left.split_once(" .") {
        Some((target, args)) => (Some(target), args),
        None => (None, left),
    };
    let mut params: Vec<Type> = target.map(|t| type_of(t.trim())).into_iter().collect();
    params.extend(split(args).into_iter().map(type_of));
    Form {
        member: target.is_some(),
        params,
        result: type_of(result.trim()),
    }
}

/// Parts between commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut out, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        out.push(last);
    }
    out
}

fn type_of(text: &str) -> Type {
    if let Some(inner) = text.strip_suffix(')') {
        let (name, inner) = inner.split_once('(').unwrap_or((inner, ""));
        let parts: Vec<Type> = split(inner).into_iter().map(type_of).collect();
        let part = |i: usize| Box::new(parts.get(i).cloned().unwrap_or(Type::Dyn));
        return match name {
            "list" => Type::List(part(0)),
            "map" => Type::Map(part(0), part(1)),
            _ => Type::Optional(part(0)),
        };
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "type" => Type::Type,
        "url" => Type::Opaque("kubernetes.URL"),
        "quantity" => Type::Opaque("kubernetes.Quantity"),
        "ip" => Type::Opaque("net.IP"),
        "cidr" => Type::Opaque("net.CIDR"),
        "format" => Type::Opaque("kubernetes.NamedFormat"),
        "A" => Type::Param('A'),
        "B" => Type::Param('B'),
        _ => Type::Dyn,
    }
}

/// The forms of a function.
pub(super) fn forms(name: &str) -> &'static [Form] {
    FORMS.get(name).map_or(&[], Vec::as_slice)
}

/// Is there such a function?
pub(super) fn is_function(name: &str) -> bool {
    FORMS.contains_key(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let form = &forms("getQuery")[0];
        assert!(form.member);
        assert_eq!(form.result.to_string(), "map(string, list(string))");
        assert_eq!(forms("_<_").len(), 14);
        assert!(forms("optional.none")[0].params.is_empty());
        assert_eq!(
            forms("_[_]")[2].params[0].to_string(),
            "optional_type(list(A))"
        );
    }
}
