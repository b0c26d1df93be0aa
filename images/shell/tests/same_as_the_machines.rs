//! The same scripts by the machine's own shell and tools, and by ours: the same output, the
//! same status.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_shell-image");

/// Scripts of the shell's own language.
const LANGUAGE: &[&str] = &[
    // words
    "echo a  b 'c  d' \"e  f\"",
    "x='a b'; echo $x; echo \"$x\"; echo '$x'",
    "x=5; echo ${x} ${x}y ${y:-d} ${x:-d} ${y-e} ${x:+alt} ${y:+alt}. ${#x}",
    "echo ${y:=set}; echo $y",
    "echo ${y?nothing here}; echo not reached",
    "y=; echo [${y-a}] [${y:-a}] [${y+a}] [${y:+a}]",
    "p=/usr/lib/libc.so.6; echo ${p##*/} ${p%/*} ${p#*/} ${p%%.*} ${p%.so*}",
    "x=\"a*b\"; echo ${x%\"*\"b} ${x#a}",
    "printf '%s\\n' \"a\\\"b \\$x \\\\ \\n\"; echo a\\ b",
    "echo $(echo a; echo b) `echo c`",
    "echo \"$(printf 'a\\n\\n')\"x",
    "echo $(echo \"nested $(echo deep)\")",
    "echo `echo \\`echo old\\``",
    "x=$(false); echo $?; x=$(exit 7); echo $?",
    "echo $((1+2*3)) $(( (1+2)*3 )) $((7/2)) $((7%3)) $((1<2))",
    "x=3; echo $((x*x)) $((x+=2)) $x $((x>4?1:0)) $((0x10)) $((!x)) $((~0))",
    "set -- a 'b c' d; echo $# $1 \"$2\" $3; for i in \"$@\"; do echo [$i]; done; for i in $@; do echo [$i]; done; for i in \"$*\"; do echo [$i]; done",
    "set --; for i in \"$@\"; do echo no; done; echo \"[$*]\" $#",
    "set -- a b c; shift; echo $1 $#; shift 2; echo $#",
    "IFS=:; x=a:b::c; for i in $x; do echo [$i]; done; set -- 1 2 3; echo \"$*\"",
    "IFS=; x='a b'; for i in $x; do echo [$i]; done",
    "x=' a  b '; for i in $x; do echo [$i]; done; echo [$x]",
    "echo ~ | grep -c /; HOME=/h; echo ~ ~/x \"~\" a~",
    "touch b.txt a.txt c.md .hidden; mkdir d; touch d/x.txt; echo *; echo *.txt; echo */*; echo [ab]*; echo '*'; echo no*match; echo .h*; echo ?.md",
    "set -f; touch a; echo *",
    "echo a#b # comment\n#another\necho c",
    "echo a\\\nb",
    "x=1 y=2; echo $x$y; z=$x$y; echo $z",
    "x=a; x=b sh -c 'echo $x'; echo $x",
    "echo \"${x:-a \"quoted\" b}\" ${x:-'single quoted'}",
    "echo ${10} ; set -- 1 2 3 4 5 6 7 8 9 ten; echo ${10} $10",
    // lists and pipelines
    "true && echo yes; false && echo no; false || echo or; true || echo no",
    "false; echo $?; ! false; echo $?; ! true; echo $?",
    "echo a | cat | tr a b; false | true; echo $?; true | false; echo $?",
    "echo one; echo two | { read x; echo got $x; }; echo three",
    "(echo sub; exit 3); echo $?; (x=5); echo [$x]; { x=6; }; echo $x",
    "i=0; while [ $i -lt 3 ]; do echo $i; i=$((i+1)); done",
    "i=3; until [ $i -eq 0 ]; do i=$((i-1)); echo $i; done",
    "for i in 1 2 3 4; do [ $i = 2 ] && continue; [ $i = 4 ] && break; echo $i; done",
    "for i in 1 2; do for j in a b; do [ $j = b ] && continue 2; echo $i$j; done; done",
    "for i in 1 2; do for j in a b; do break 2; done; done; echo $i$j",
    "for i\ndo echo $i; done",
    "if true; then echo a; elif true; then echo b; else echo c; fi",
    "if false; then echo a; elif true; then echo b; else echo c; fi; if false; then :; else echo c; fi",
    "if false; then echo a; fi; echo $?",
    "case abc in a*) echo first;; *) echo second;; esac",
    "case 'a b' in 'a b') echo ok;; esac; case x in a|x|b) echo alt;; esac; case y in (y) echo paren; esac; case z in a) ;; esac; echo $?",
    "case '*' in '*') echo star;; esac; x='*'; case abc in \"$x\") echo no;; $x) echo yes;; esac",
    "case 5 in [0-9]) echo digit;; esac; case a in [!0-9]) echo other;; esac",
    "f() { echo \"$1-$2 $#\"; return 4; echo no; }; f a b; echo $?; set -- x; f q; echo $1",
    "f() { local x=2; echo $x; g; }; g() { echo g$x; }; x=1; f; echo $x",
    "f() ( x=9; echo in ); x=1; f; echo $x",
    "f() { f2() { echo inner; }; }; f; f2; unset -f f2; f2 2>/dev/null; echo $?",
    "fact() { if [ $1 -le 1 ]; then echo 1; else echo $(( $1 * $(fact $(($1-1))) )); fi; }; fact 10",
    "while true; do echo y; done | head -2",
    "echo hello | while read x; do echo got $x; done",
    "printf 'a b c\\nd\\n' | while read x y; do echo \"[$x][$y]\"; done",
    "printf 'a\\\\tb\\n' | { read x; echo \"$x\"; }; printf 'a\\\\tb\\n' | { read -r x; printf '%s\\n' \"$x\"; }",
    "printf 'no newline' | { read x; echo $? $x; }; printf '' | { read x; echo $?; }",
    "printf 'a:b:c\\n' | { IFS=: read x y; echo \"$x $y\"; }",
    // redirections
    "echo a > f; echo b >> f; cat f; cat < f; echo c > f; cat f",
    "ls /nonexistent 2>/dev/null || echo failed; echo err >&2 2>/dev/null; { echo out; echo err >&2; } 2>&1 | sort",
    "cat <<EOF\nhello $((1+1)) `echo x`\n\\$y \\\\ \"q\"\nEOF",
    "x=5; cat <<'EOF'\n$x `no`\nEOF\necho after",
    "cat <<-EOF\n\t\tindented\n\tEOF",
    "cat <<A; cat <<B\none\nA\ntwo\nB",
    "if true; then cat <<E\nin if\nE\nfi | tr a-z A-Z",
    "exec 3>f; echo three >&3; exec 3>&-; cat f",
    "exec > f; echo hidden; exec >&2; cat f >&2 2>/dev/null",
    "cat < /nonexistent 2>/dev/null || echo failed; : > new; ls new",
    "{ echo a; echo b; } > f; wc -l < f | tr -d ' '",
    "for i in 1 2; do echo $i; done > f; cat f; echo x | (cat; cat f)",
    "f() { echo to; }; f > g; cat g; > empty; [ -s empty ]; echo $?",
    // builtins
    "export A=1; sh -c 'echo $A'; unset A; echo [$A]; B=2; sh -c 'echo [$B]'",
    "cd /tmp && pwd; cd / ; cd - >/dev/null; pwd; cd /nonexistent 2>/dev/null || echo failed",
    "readonly R=1; (R=2; echo not reached) 2>/dev/null; echo $R",
    "set -e; true; false; echo not reached",
    "set -e; false || true; if false; then :; fi; ! true; echo reached; (exit 3); echo no",
    "set -e; f() { false; echo in f; }; if f; then echo ok; fi; f; echo not reached",
    "set -u; echo ${x-ok}; echo $undefined; echo not reached",
    "trap 'echo bye' EXIT; echo hi; exit 3",
    "trap 'echo term' TERM; kill -TERM $$; echo after",
    "(trap 'echo sub' EXIT; echo in); echo out",
    "eval 'x=1; echo $x'; eval \"echo \\$x\"; eval; echo $?",
    "echo 'y=3; echo sourced $1' > s; . ./s; echo $y",
    "sh -c 'echo $0 $1 $#' name arg; sh -c 'exit 5'; echo $?",
    "sleep 0.1 & wait; echo done; (exit 6) & wait $!; echo $?",
    "type cd >/dev/null && echo found; command -v echo; nosuchcommand 2>/dev/null; echo $?",
    "./nosuch 2>/dev/null; echo $?; touch plain; ./plain 2>/dev/null; echo $?",
    "printf '#!/bin/sh\\necho script $1\\n' > s; chmod +x s; ./s arg; printf 'echo bare $1\\n' > t; chmod +x t; ./t arg",
    "[ a = a ] && [ ! a = b ] && [ 1 -lt 2 ] && test -d / && echo all",
    "[ -n '' ]; echo $?; [ '' ]; echo $?; [ -z '' -a 1 -eq 1 ]; echo $?; [ 1 -eq 2 -o 2 -eq 2 ]; echo $?",
    "true; : ; echo $?; umask 077; umask",
    "exit 300",
    "x=$(echo a\necho b); echo $x",
    "if true\nthen\necho multi\nfi\n\n\nfor i in a \\\n b\ndo\n echo $i\ndone",
    "echo a; fi; echo b",
    "echo a &\nwait\necho b",
    "a=1; a=$a$a b=$a; echo $a $b",
    "echo $? $# ; echo ${#}",
    "x=abc; echo ${x}${x%c}${x#a}; y=${x%%[bc]*}; echo $y",
    "set -- -n x; echo \"$@\"; echo; echo '-n' x",
    "sh -c 'kill -9 $$'; echo $?",
    "sh -c 'kill -TERM $$' ; echo $?",
    "sh -s a b <<'E'\necho $1 $2\nE",
    "true | (read x; echo $?); echo ok | { cat; echo; }",
];

/// Scripts that use tools, for which the machine has its own.
const TOOLS: &[&str] = &[
    "printf 'c\\na\\nb\\na\\n' > f; sort f; sort -r f; sort -u f; sort f | uniq -c; sort f | uniq -d; sort f | uniq -u",
    "printf '10\\n9\\n-1\\n1.5\\nx\\n' | LC_ALL=C sort -n; printf 'b 2\\na 10\\nc 1\\n' | LC_ALL=C sort -k2n; printf 'b:2\\na:10\\n' | LC_ALL=C sort -t: -k2,2n -k1",
    "printf 'B\\na\\nC\\n' | LC_ALL=C sort -f",
    "seq 5; seq 2 4; seq 10 -3 1; seq -s, 3; seq -w 8 10; seq 0.5 0.5 2; seq 3 1; seq -2 0",
    "seq 20 | head; seq 20 | head -n 3; seq 20 | head -3; seq 5 | head -n -2; printf abcdef | head -c 3",
    "seq 20 | tail; seq 20 | tail -n 3; seq 20 | tail -2; seq 5 | tail -n +4; printf abcdef | tail -c 2; printf abcdef | tail -c +3",
    "seq 3 > a; seq 2 > b; head -n 1 a b; tail -qn 1 a b",
    "seq 3 | wc -l; printf 'a b\\nc' | wc -w; printf abc | wc -c; printf 'äö' | LC_ALL=C.UTF-8 wc -m",
    "printf 'hello world\\nfoo\\nHello\\n' > f; grep hello f; grep -i hello f; grep -v hello f; grep -c hello f; grep -n foo f; grep -q foo f; echo $?; grep nothing f; echo $?",
    "printf 'a1b22c\\n' | grep -o '[0-9]*'; printf 'a1b22c\\n' | grep -oE '[0-9]+'; printf 'ab\\nabc\\n' | grep -x ab; printf 'ab a\\nabc\\n' | grep -w ab",
    "seq 10 | grep -A1 5; seq 10 | grep -B1 5; seq 10 | grep -C1 5; seq 20 | grep -A1 '[37]$'; seq 10 | grep -n -A1 5",
    "seq 3 > a; seq 4 > b; grep 3 a b; grep -l 4 a b; grep -h 3 a b; grep -c 3 a b; mkdir d; cp a d; grep -r 3 d; grep -H 1 a; grep x nofile 2>/dev/null; echo $?",
    "printf 'a+b\\naab\\n' | grep 'a+b'; printf 'a+b\\naab\\n' | grep -E 'a+b'; printf 'a.b\\naxb\\n' | grep -F a.b; printf 'x\\ny\\nz\\n' | grep -e x -e z; seq 10 | grep -m2 1",
    "printf 'foo(bar)\\n' | grep -E '\\(bar\\)'; printf 'foo(bar)\\n' | grep '(bar)'; printf 'aXb\\n' | grep -E '^a[[:upper:]]b$'; printf 'one\\ntwo\\n' | grep 'one\\|two'",
    "echo hello | sed s/l/L/; echo hello | sed s/l/L/g; echo hello | sed s/l/L/2; echo a/b | sed 's|/|-|'; echo abc | sed 's/\\(a\\)\\(b\\)/\\2\\1/'; echo abc | sed -E 's/(a)(b)/\\2\\1/'; echo abc | sed 's/b/[&]/'",
    "seq 5 | sed -n 3p; seq 5 | sed 2d; seq 5 | sed 2,4d; seq 5 | sed -n '/2/,/4/p'; seq 5 | sed -n '$p'; seq 5 | sed '3q'; seq 5 | sed -n '2,3!p'; seq 10 | sed -n '0~3p'; seq 5 | sed '2,+1d'",
    "seq 3 | sed 's/2/two/;s/3/three/'; seq 3 | sed -e 's/1/a/' -e 's/2/b/'; seq 3 | sed -n '2{p;p}'; seq 3 | sed '2a\\after'; seq 3 | sed '2i before'; seq 3 | sed '2c changed'; seq 2 | sed =",
    "seq 4 | sed 'N;s/\\n/-/'; seq 3 | sed -n 'h;n;G;p'; seq 3 | sed '1!G;h;$!d'; echo aaa | sed ':a;s/a/b/;ta'; echo abc | sed 'y/abc/xyz/'; seq 4 | sed -n 'n;p'; echo Hello | sed 's/hello/x/I'",
    "seq 3 > f; sed -i 's/2/two/' f; cat f; echo 'a.b' | sed 's/\\./-/'; echo 'k: v' | sed -n 's/^k: *//p'; echo ab | sed 's/x*/-/g'; printf 'no end' | sed s/n/N/",
    "seq 6 | sed -n '/3/!p'; seq 6 | sed '/2/,4d'; seq 6 | sed '4,2d'; printf 'a\\nb\\n' | sed 's/$/!/'; printf 'x=1\\ny=2\\n' | sed '/^x/s/1/9/'",
    "echo a:b:c | cut -d: -f2; echo a:b:c | cut -d: -f1,3; echo a:b:c | cut -d: -f2-; echo abcdef | cut -c2-4; echo nodelim | cut -d: -f1; echo nodelim | cut -s -d: -f1; printf 'a\\tb\\n' | cut -f2; echo abc | cut -b1,3",
    "echo hello | tr a-z A-Z; echo hello | tr -d l; echo aabbc | tr -s ab; echo 'a b' | tr ' ' '\\n'; echo abc123 | tr -cd 0-9; echo; echo abc | tr '[:lower:]' '[:upper:]'; echo abc | tr abc x; echo 'a  b' | tr -s ' '",
    "mkdir -p a/b/c; ls a; rmdir a/b/c; ls a/b; mkdir a 2>/dev/null; echo $?; rm a 2>/dev/null; echo $?; rm -r a; ls; rm nofile 2>/dev/null; echo $?; rm -f nofile; echo $?",
    "echo x > a; cp a b; cat b; mkdir d; cp a b d; ls d; cp -r d e; ls e; mv a c; ls; mv c d; ls d; cp d x 2>/dev/null; echo $?; cp a a 2>/dev/null; echo $?",
    "echo x > a; ln -s a l; cat l; readlink l; ln a h; echo y >> a; cat h; ls l; rm a; cat l 2>/dev/null; echo $?; ln -sf h l; readlink l",
    "touch b a c; ls; ls -1r; ls -a; mkdir d; touch d/x; ls d; ls -d d; ls -F; ls nofile 2>/dev/null || echo none; ls a b; ls a d; ls -R; ls -A",
    "mkdir -p d/e; echo 1 > d/f; chmod 640 d/f; ln -s f d/l; tar cf a.tar d; rm -rf d; tar xf a.tar; find d | sort; cat d/f; stat -c %a d/f; readlink d/l; tar tf a.tar | sort",
    "mkdir d to; echo 1 > d/a; echo 2 > d/b; tar -cf - -C d a b | tar -xmf - -C to; cat to/a to/b; tar -cf a.tar d; tar -xOf a.tar d/b; tar -tf a.tar d/a",
    "n=$(seq -s x 1 60); mkdir -p d/$n; echo deep > d/$n/$n; ln -s $n/$n d/l; tar cf - d | { mkdir o; tar -C o --no-same-owner -xf -; }; cat o/d/l; find o | sort",
    "echo junk | tar tf - 2>/dev/null || echo no archive; mkdir d; tar cf a.tar d/none 2>/dev/null || echo missing; head -c 700 a.tar | tar xf - -C d 2>/dev/null; head -c 600 a.tar | tail -c 90 | tar tf - 2>/dev/null || echo cut",
    "touch a; chmod 644 a; stat -c '%a %n %F %s' a; chmod u+x,go-r a; stat -c %a a; chmod 755 a; stat -c %A a; echo hi > a; stat -c '%s %F' a; stat -c %F .",
    "touch -c no; ls; touch a; test -e a; echo $?; test -x a; echo $?; test -f a -a ! -d a; echo $?",
    "basename /a/b.txt; basename /a/b.txt .txt; basename a/; basename /; dirname /a/b; dirname a; dirname /a; dirname a/b/; dirname /",
    "echo a b c | xargs; printf 'a\\nb\\n' | xargs -n1 echo x; printf 'a b\\nc\\n' | xargs -I{} echo '<{}>'; printf 'a\\0b c\\0' | xargs -0 -n1 echo; printf '' | xargs -r echo no; printf \"'a b' c\\n\" | xargs -n1 echo; echo x | xargs false; echo $?",
    "echo a | tee f; cat f; echo b | tee -a f > /dev/null; cat f; echo x | tee f g; cat g",
    "env -i A=1 B=2 /usr/bin/env | sort; env -u HOME sh -c 'echo [$HOME]'; X=5 printenv X; printenv NOPE; echo $?; env A=7 sh -c 'echo $A'; env nosuch 2>/dev/null; echo $?",
    "date -u -d @0 '+%Y-%m-%d %H:%M:%S'; date -u -d @1700000000 +%s; date -u -d @0; date +%Y | wc -c",
    "printf '%s\\n' a b; printf '%d %5.2f %x\\n' 42 3.14159 255; printf '%-5s|%5s|\\n' ab cd; printf '%%\\n'; printf 'a\\tb\\n'; printf '%b\\n' 'x\\ty'; printf '%c\\n' hello; printf '%05d\\n' 42; printf '%s %s\\n' a; printf '%d\\n' x 2>/dev/null; echo $?",
    "yes | head -2; yes a b | head -1; which sh > /dev/null; echo $?; which nosuch; echo $?; true; echo $?; false; echo $?",
    "id -u; id -g; id -un; whoami; uname; uname -s; hostname | wc -l; nproc; tty < /dev/null; echo $?",
    "expr=1; sleep 0; echo $?; sleep x 2>/dev/null; echo $?; timeout 0.2 sleep 5; echo $?; timeout 5 true; echo $?",
    "echo hello | base64; echo aGVsbG8K | base64 -d; seq 40 | base64; seq 40 | base64 -w0; echo; echo '!' | base64 -d 2>/dev/null; echo $?",
    "cat nofile 2>/dev/null; echo $?; echo a | cat -; echo b > f; echo a | cat f -; cat -n f; cat . 2>/dev/null; echo $?",
    "mkdir -p a/b; touch a/x.txt a/b/y.txt a/b/z.md; find a | sort; find a -name '*.txt' | sort; find a -type d | sort; find a -maxdepth 1 | sort; find nofile 2>/dev/null; echo $?",
    "kill -l 9; kill -0 $$; echo $?; sleep 5 & kill $!; wait $!; echo $?",
    "sort --nonsense 2>/dev/null; echo $?; grep --nonsense x 2>/dev/null; echo $?; ls --nonsense 2>/dev/null; [ $? -ne 0 ]; echo $?; cut 2>/dev/null; echo $?; tr 2>/dev/null; echo $?",
    "seq 100000 | tail -1; seq 100000 | sort -rn | head -1; seq 100000 | wc -l; seq 1000 | sed -n '$='; seq 1000 | grep -c 7",
    "mkdir d; echo a > d/a; cp -a d e; mv d f; ls f e; rmdir e 2>/dev/null; echo $?; mv nofile x 2>/dev/null; echo $?; touch x y; mv x y; ls",
];

fn run(shell: &[&str], script: &str, path: &str) -> (String, Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let output: Output = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", script])
        .current_dir(directory.path())
        .env("PATH", path)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env_remove("y")
        .env_remove("x")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn compare(scripts: &[&str]) {
    if !Path::new("/bin/sh").exists() {
        eprintln!("there is no /bin/sh to compare with");
        return;
    }
    let bin = tempfile::tempdir().unwrap();
    for name in shell_image::APPLETS {
        symlink(PROGRAM, bin.path().join(name)).unwrap();
    }
    let ours = format!("{}:/usr/bin:/bin", bin.path().display());
    let mut differences = Vec::new();
    for script in scripts {
        let expected = run(&["/bin/sh"], script, "/usr/bin:/bin");
        let got = run(&[PROGRAM, "sh"], script, &ours);
        if (&expected.0, expected.1) != (&got.0, got.1) {
            differences.push(format!(
                "--- {script}\n### expected {expected:#?}\n### got {got:#?}"
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ\n{}",
        differences.len(),
        scripts.len(),
        differences.join("\n")
    );
}

#[test]
fn the_language() {
    compare(LANGUAGE);
}

#[test]
fn the_tools() {
    compare(TOOLS);
}
