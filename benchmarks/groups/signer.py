"""Passwords of the Aliyun IoT Platform, beside OpenSSL."""

import re

from groups.google import google

WHO = {"runnel_password": "runnel", "openssl_hmac": "HMAC()", "openssl_evp_mac": "EVP_MAC"}


def signer(figures, programs, options):
    def known(name):
        found = re.match(r"(runnel_password|openssl_hmac|openssl_evp_mac)<.*?(hmac\w+)>", name)
        return (WHO[found.group(1)], "signer/" + found.group(2)) if found else None

    google(figures, programs["signer"], options, known, "ns")
    for who in WHO.values():
        figures.expect("signer", who)
    for method in ("hmacmd5", "hmacsha1", "hmacsha256"):
        ours, theirs = (figures.median(f"signer/{method}", "ns", w) for w in ("runnel", "HMAC()"))
        if ours and theirs:
            figures.add(f"signer/{method}", "runnel", "share of HMAC()", ours / theirs)
