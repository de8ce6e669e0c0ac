#!/bin/sh
# pki.sh DIR: makes the certificates of test_tls in DIR by the openssl command:
# good ones, and one for each thing that a client must refuse. NAME.pem is a
# certificate, NAME.key its key; which issuer signed it stands in the list
# below. Most share one key, because only their contents matter.
set -eu
cd "$1"
exec 2>log

names() { # COUNT: a subjectAltName that is long
    i=0
    printf 'DNS:api.example.test'
    while [ $i -lt "$1" ]; do
        i=$((i + 1))
        printf ',DNS:a-name-to-fill-the-certificate-%05d.test' $i
    done
}

# A dNSName "api.example.test\0.evil.test".
nul_name=30:1D:82:1B:61:70:69:2E:65:78:61:6D:70:6C:65:2E:74:65:73:74:00:2E:65
nul_name=$nul_name:76:69:6C:2E:74:65:73:74

cat >cnf <<END
[req]
distinguished_name = dn
[dn]
[ca]
default_ca = dated
[dated]
database = index
rand_serial = yes
new_certs_dir = .
policy = any
default_md = sha256
[any]
commonName = optional

[root]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
[no_cert_sign]
basicConstraints = critical,CA:true
keyUsage = critical,cRLSign
[path_zero]
basicConstraints = critical,CA:true,pathlen:0
keyUsage = critical,keyCertSign
[limited]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
nameConstraints = permitted;DNS:elsewhere.test
[limited_critical]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
nameConstraints = critical,permitted;DNS:example.test
[violated]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
nameConstraints = critical,permitted;DNS:elsewhere.test

[good]
subjectAltName = DNS:api.example.test,DNS:*.wild.test,IP:127.0.0.1,IP:::1
[upper]
subjectAltName = DNS:API.Example.TEST
[other]
subjectAltName = DNS:other.test,IP:127.0.0.2
[no_san]
[inner_wildcard]
subjectAltName = DNS:api.*.test
[partial_wildcard]
subjectAltName = DNS:ap*.example.test,DNS:*pi.example.test
[tld_wildcard]
subjectAltName = DNS:*.test
[nul_name]
subjectAltName = DER:$nul_name
[ip_as_dns]
subjectAltName = DNS:127.0.0.1
[ip_wildcard]
subjectAltName = DNS:*.0.0.1
[for_clients]
subjectAltName = DNS:api.example.test
extendedKeyUsage = clientAuth
[no_signing]
subjectAltName = DNS:api.example.test
keyUsage = critical,keyEncipherment
[unknown_critical]
subjectAltName = DNS:api.example.test
1.3.6.1.4.1.99999.1 = critical,DER:05:00
[large]
subjectAltName = $(names 225)
[too_large]
subjectAltName = $(names 420)
END
: >index

for key in ec second; do
    openssl ecparam -name prime256v1 -genkey -noout -out $key.key
done
openssl genrsa -out rsa.key 2048
openssl genrsa -out weak.key 1024
openssl rsa -traditional -aes128 -passout pass:secret -in rsa.key -out \
    locked.key

# cert NAME EXTENSIONS KEY ISSUER ISSUER_KEY [SUBJECT [OPTION...]]
cert() {
    name=$1 ext=$2 key=$3 ca=$4 cakey=$5 subject=${6:-/CN=$1}
    shift $(($# < 6 ? $# : 6))
    if [ "$ca" = self ]; then
        openssl req -x509 -config cnf -extensions "$ext" -key "$key.key" \
            -subj "$subject" -days 30 "$@" -out "$name.pem"
    else
        openssl req -x509 -config cnf -extensions "$ext" -key "$key.key" \
            -CA "$ca.pem" -CAkey "$cakey.key" -subj "$subject" -days 30 \
            "$@" -out "$name.pem"
    fi
}

# dated NAME EXTENSIONS ISSUER FROM TO
dated() {
    openssl req -new -config cnf -key ec.key -subj "/CN=$1" -out csr
    openssl ca -batch -config cnf -notext -in csr -extensions "$2" \
        -cert "$3.pem" -keyfile ec.key -startdate "$4" -enddate "$5" \
        -out "$1.pem"
}

# issuers
cert root root ec self -
cert root_rsa root rsa self -
cert stranger root second self -
cert lookalike root second self - /CN=root
cert inter root ec root ec
cert inter_rsa root rsa root_rsa rsa
cert inter_stranger root second stranger second
cert inter_no_sign no_cert_sign ec root ec
cert inter_zero path_zero ec root ec
cert inter_below root ec inter_zero ec
cert inter_sha1 root ec root ec /CN=inter_sha1 -sha1
cert inter_weak root weak root ec
cert inter_limited limited ec root ec
cert inter_critical limited_critical ec root ec
cert inter_violated violated ec root ec
dated inter_expired root root 20200101000000Z 20210101000000Z

# servers
cert good good ec inter ec
cert good_rsa good rsa inter_rsa rsa
for name in upper other inner_wildcard partial_wildcard tld_wildcard \
    nul_name ip_as_dns ip_wildcard for_clients \
    unknown_critical large too_large; do
    cert $name $name ec inter ec
done
cert no_signing no_signing rsa inter_rsa rsa
cert cn_only no_san ec inter ec /CN=api.example.test
cert cn_not_san other ec inter ec /CN=api.example.test
dated expired good inter 20200101000000Z 20210101000000Z
dated future good inter 20900101000000Z 20910101000000Z
cert self_signed good ec self - /CN=api.example.test
cert by_stranger good ec stranger second
cert by_lookalike good ec lookalike second
cert by_expired good ec inter_expired ec
cert by_leaf good ec good ec
cert by_no_sign good ec inter_no_sign ec
cert by_below good ec inter_below ec
cert by_sha1 good ec inter_sha1 ec
cert by_weak good ec inter_weak weak
cert by_limited good ec inter_limited ec
cert by_critical good ec inter_critical ec
cert by_violated good ec inter_violated ec
cert sha1 good ec inter ec /CN=sha1 -sha1
cert md5 good rsa inter_rsa rsa /CN=md5 -md5
cert weak good weak inter ec

# clients
cert client for_clients rsa root ec

# what a client trusts
cat root.pem root_rsa.pem >ca.pem
openssl x509 -in root.pem -outform DER -out ca.der
mkdir folder
cp root.pem folder/one.pem
cp root_rsa.pem folder/two.pem
echo 'not a certificate' >folder/three
{
    echo '-----BEGIN CERTIFICATE-----'
    echo 'AAAAAAAA'
    echo '-----END CERTIFICATE-----'
    cat root.pem
    echo '-----BEGIN CERTIFICATE-----'
    echo '!!! no base64 !!!'
    echo '-----END CERTIFICATE-----'
    cat root_rsa.pem
} >partly_bad.pem
: >empty.pem
echo ready
