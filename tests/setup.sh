#!/bin/sh
# setup.sh [TARGET...]: brings in what the build, the demo and the tests need,
# where it is missing, through the system's package manager, and says so first.
# Then makes the targets: `sh tests/setup.sh demo` is the way in where there is
# no make yet. CC and FLAGS (search paths) come from the Makefile.
set -eu
cd "$(dirname "$0")/.."
cc=${CC:-cc}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Can a program that includes these headers be compiled and linked?
links() { # LIBRARY HEADER...
    lib=$1
    shift
    {
        for header; do
            echo "#include <$header>"
        done
        echo "int main(void) { return 0; }"
    } | $cc ${FLAGS:-} -x c - -o /dev/null "-l$lib" >/dev/null 2>&1
}

find_missing() {
    missing=
    have make || missing="$missing make"
    if ! links c stdio.h; then
        missing="$missing compiler mbedtls cmocka"
    else
        links mbedtls mbedtls/ssl.h || missing="$missing mbedtls"
        links cmocka stdarg.h stddef.h stdint.h setjmp.h cmocka.h ||
            missing="$missing cmocka"
    fi
    have openssl || missing="$missing openssl"
    missing=${missing# }
}

# The package that brings in one of the things above.
package() { # MANAGER THING
    case $1:$2 in
    *:compiler)
        case $cc in
        clang*) echo clang ;;
        *) echo gcc ;;
        esac
        case $1 in
        apt-get) echo libc6-dev ;;
        apk) echo musl-dev ;;
        dnf | zypper) echo glibc-devel ;;
        esac
        ;;
    apt-get:mbedtls) echo libmbedtls-dev ;;
    apt-get:cmocka) echo libcmocka-dev ;;
    apk:mbedtls) echo mbedtls-dev ;;
    apk:cmocka) echo cmocka-dev ;;
    dnf:mbedtls | zypper:mbedtls) echo mbedtls-devel ;;
    dnf:cmocka | zypper:cmocka) echo libcmocka-devel ;;
    pkg:make) echo gmake ;;
    *) echo "$2" ;;
    esac
}

install_with() { # MANAGER PACKAGE...
    manager=$1
    shift
    root=
    if [ "$manager" != brew ] && [ "$(id -u)" != 0 ]; then
        root=sudo
        have sudo || root="su root -c"
    fi
    case $manager in
    apt-get)
        set -- "apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq \
-y --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
install $* >/dev/null"
        ;;
    apk) set -- "apk add --no-cache $*" ;;
    dnf) set -- "dnf -q -y install $*" ;;
    zypper) set -- "zypper -q -n install $*" ;;
    pacman) set -- "pacman -Sy --noconfirm --needed $*" ;;
    pkg) set -- "pkg install -y $*" ;;
    brew) set -- "brew install $*" ;;
    esac
    echo "setup: missing: $missing; running${root:+ $root}: $1"
    case $root in
    '') sh -c "$1" ;;
    sudo) sudo sh -c "$1" ;;
    *) su root -c "$1" ;;
    esac
}

find_missing
if [ -n "$missing" ]; then
    manager=none
    for candidate in apt-get apk dnf zypper pacman pkg brew; do
        if have "$candidate"; then
            manager=$candidate
            break
        fi
    done
    if [ "$manager" = none ]; then
        echo "setup: please install: $missing" >&2
        exit 1
    fi
    packages=
    for thing in $missing; do
        packages="$packages $(package "$manager" "$thing" | tr '\n' ' ')"
    done
    install_with "$manager" $packages </dev/null || true
    find_missing
    if [ -n "$missing" ]; then
        echo "setup: still missing: $missing; please install it" >&2
        exit 1
    fi
fi

if [ $# -gt 0 ]; then
    exec make "$@"
fi
