"""Passwords of the Aliyun IoT Platform, beside OpenSSL."""

import re

from groups.google import google


def signer(figures, programs, runs):
    methods = {"hmacmd5": 0, "hmacsha1": 1, "hmacsha256": 2}

    def known(name):
        found = re.match(r"(runnel_password|openssl_hmac|openssl_evp_mac)<.*?(hmac\w+)>", name)
        who = {"runnel_password": "runnel", "openssl_hmac": "HMAC()", "openssl_evp_mac": "EVP_MAC"}
        return (who[found.group(1)], "signer/" + found.group(2)) if found else None

    google(figures, programs["signer"], runs, known, "ns")
    for method in methods:
        ours, theirs = (figures.median(f"signer/{method}", "ns", w) for w in ("runnel", "HMAC()"))
        if ours and theirs:
            figures.add(f"signer/{method}", "runnel", "share of HMAC()", ours / theirs)
