from kontext_async.emulator.signed_urls import UrlCheck, UrlSigner


def test_result_urls_expire_and_cannot_be_forged() -> None:
    signer = UrlSigner(origin="http://files", secret=b"s", lifetime=10)
    url = signer.sign("task", 0, "png", 100.0)
    assert signer.extract_name(url, 109.9) == "task/0.png"
    assert signer.extract_name(url, 110.0) is None
    assert signer.extract_name(url.replace("task", "other"), 100.0) is None
    assert signer.extract_name("http://elsewhere" + url.removeprefix("http://files"), 100.0) is None
    assert signer.extract_name("http://files/other", 100.0) is None
    assert signer.check("task/0.png", {}, 100.0) is UrlCheck.FORGED
    assert signer.check("task/0.png", {"signature": "\u00e9", "expires": "x"}, 100.0) is UrlCheck.FORGED
