"""Japanese: 答えは42です。"""

from evaluators.extraction.languages.language import Language

LANGUAGE = Language(
    name="Japanese",
    letters="\u3040-\u30ff\u4e00-\u9fff",
    keywords=("答え", "答案", "解答", "結果", "正解"),
    answer=r"(?:最終的な)?(?:答え|解答|結果|正解)(?:は|が|：|:)、?",
    denied_before="",
    denied_after=r"[ $]{0,3}\w{0,3}(?:(?:です|でしょう)か|ではな|ではあ|じゃな|では違|は間違|は誤)",
    doubted_before=r"(?:たぶん|おそらく|もしかして|もしかすると)、?[ $]{0,3}$",
    hedge=r"または|もしくは|かもしれ|ではな",
    copula=r"(?:です|である|でした|だ|となります|となる|になります|になる|と(?:な|分か)り?ます)$",
    question=r"[？?かな違誤]",
    multipliers={"百": 100, "千": 1000, "万": 10_000, "億": 100_000_000, "ダース": 12},
    units={
        "キログラム": "kg",
        "グラム": "g",
        "キロメートル": "km",
        "メートル": "m",
        "センチメートル": "cm",
        "センチ": "cm",
        "ミリメートル": "mm",
        "リットル": "L",
        "ミリリットル": "mL",
        "秒": "s",
        "分": "min",
        "時間": "hours",
        "度": "degrees",
        "ドル": "dollars",
    },
    counters="個人本枚匹円つ冊台回歳日年頭羽杯足軒通分組問ページ箱点",
)
