# ruff: noqa: RUF001
"""Real sentences whose scripts need characters that Python does not call printable."""

SENTENCES = {
    "French, narrow no-break space": "Que voit-on\u202f? Un chat, 1\u202f000\u00a0euros\u202f!",
    "Persian, zero width non-joiner": "می\u200cخواهم این عکس\u200cها را ببینم.",
    "Hindi, zero width joiner": "क्\u200dष और श्री\u200cमान दोनों सही हैं।",
    "Bengali, zero width joiner": "র\u200d্যাম কী\u0964",
    "Sinhala, zero width joiner": "ශ්\u200dරී ලංකාව",
    "Thai": "ในภาพมีแมวกี่ตัว",
    "Thai, zero width space": "แมว\u200bตัว\u200bใหญ่",
    "Arabic, marks of direction": "الصورة\u200f: قطة\u061c (cat)\u200e، نعم؟",
    "Arabic, number sign": "\u0600\u0661\u0662 \u06dd",
    "Hebrew, points": "מָה רוֹאִים בַּתְּמוּנָה\u200f?",
    "Japanese, ideographic space": "\u3000猫が二匹います。\u3000はい。",
    "Korean": "그림에\u00a0고양이가 있어요.",
    "Chinese": "图中有两只猫。",
    "German, soft hyphen": "Donau\u00addampf\u00adschiff\u00adfahrt",
    "Mongolian, vowel separator": "ᠮᠣᠩᠭᠣᠯ ᠬᠡᠯᠡ\u180e\u1820",
    "Vietnamese, combining": "Tie\u0302\u0301ng Vie\u0323\u0302t",
    "an emoji family": "👨\u200d👩\u200d👧\u200d👦",
    "a heart with a variation selector": "❤\ufe0f",
    "a flag of regional indicators": "🇫🇷🇯🇵",
    "the flag of Scotland, tag characters": (
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    ),
    "a keycap": "1\ufe0f\u20e3",
    "word joiner and byte order mark": "a\u2060b\ufeffc",
    "a symbol of a font's own": "\ue0b0 \U000f0001",
    "an emoji of a newer Unicode": "\U0001faff \U0001f8ff",
    "line and paragraph separators": "a\u2028b\u2029c",
    "mathematics, invisible times": "2\u2062x = f\u2061(x)",
}
