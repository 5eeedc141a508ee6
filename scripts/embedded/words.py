"""The words that the texts are made of.

Lists of names come in two parts, before and after the bar: what stands behind the bar is never in a training text.
"""

from __future__ import annotations

__all__ = [
    "CODAS",
    "FIRST",
    "JOBS",
    "LAST",
    "LIKES",
    "MONTHS",
    "NUMBERS",
    "ONSETS",
    "PARTS",
    "PLACES",
    "QUALITIES",
    "THINGS",
    "TITLES",
    "TROUBLES",
    "VOWELS",
    "WISHES",
    "WORLD",
    "split",
]


def split(entry: str) -> tuple[list[str], list[str]]:
    """The names of a list that are trained on, and those that are held out."""
    seen, _, held_out = entry.partition("|")
    return seen.split(), held_out.split()


FIRST = """Alice Bob Carol David Emma Frank Grace Henry Irene Jack Karen Liam Noah Olivia Paul Quentin Rosa Sam Tina
Ursula Victor Wendy Xavier Yusuf Zoe Anna Ben Chloe Daniel Elena Felix Ahmed Aisha Akira Alba Amir Ana
André Anton Astrid Beatriz Birgit Bruno Camille Carlos Chen Clara Dario Diego Dmitri Elif Emil Erik
Fatima Fiona Gabriel Giulia Gustav Hana Hassan Helga Hugo Ines Ivan Jana Javier Jonas José Julia Jürgen
Kofi Lars Laura Leila Lena Louis Lucia Luka Magda Malik Marco Marek Marta Mateo Mei Mina Miriam Nadia
Nils Nora Omar Otto Pablo Pedro Petra Priya Rafael Ravi Renée Rita Sara Selma Sofia Søren Stefan Sven
Tamara Thomas Tomás Vera Viktor Yara Yuki Zofia
| Maria Abel Agnes Bianca Casper Delia Edgar Farid Greta Hamid Ida Jorge Kemal Linnea Milan Natasha Oscar
Paloma Ramon Sigrid Teodor Ulrike Valentina Wanda Yolanda Zdenka Björn Chloé Günther"""
LAST = """Smith Johnson Williams Brown Jones Garcia Miller Davis Martin Wilson Anderson Taylor Thomas Moore Lee
White Harris Clark Lewis Young Walker Hall Allen King Wright Scott Green Baker Adams Nelson Hill Campbell
Mitchell Roberts Carter Phillips Evans Turner Parker Collins Edwards Stewart Morris Murphy Cook Rogers
Peterson Cooper Reed Bailey Bell Kelly Ward Cox Richardson Wood Watson Brooks Bennett Gray Hughes Price
Myers Long Foster Powell Silva Santos Costa Ferreira Rossi Russo Bianchi Ricci Weber Schmidt Schneider
Fischer Meyer Wagner Becker Koch Bauer Müller Schäfer Dubois Moreau Laurent Lefèvre Nowak Kowalski Novák
Svoboda Horvat Popescu Ivanov Petrov Sokolov Yılmaz Kaya Demir Hansen Olsen Larsen Berg Lindqvist Nilsson
Virtanen Tanaka Suzuki Sato Kim Park Nguyen Tran Wang Zhang Khan Singh Patel Haddad Mensah Okafor
| Lopez Abbott Beaumont Castillo Dvorak Eriksson Fontaine Gallagher Hoffmann Iglesias Jankowski Kaufman
Lombardi Mancini Nakamura Osborne Pereira Quispe Ramirez Sorensen Takahashi Underwood Vasquez Whitaker
Zimmermann Núñez Öztürk Bakker"""
PLACES = """London Paris Berlin Madrid Rome Vienna Prague Dublin Helsinki Athens Warsaw Tokyo Beijing Delhi Cairo
Nairobi Toronto Chicago Boston Sydney Amsterdam Antwerp Bergen Bern Bologna Bordeaux Bremen Brno Bruges
Budapest Dakar Delft Dresden Florence Geneva Genoa Ghent Gothenburg Graz Hamburg Hanoi Istanbul Kyiv Köln
Kraków Leeds Leiden Lima Ljubljana Lyon Malmö Manila Marseille Milan Montreal München Naples Nice Odense
Osaka Ottawa Porto Quito Riga Rotterdam Salzburg Seoul Seville Sofia Split Stockholm Tallinn Tampere
Trieste Turin Utrecht Valencia Venice Verona Vilnius Zagreb Zürich
| Oslo Lisbon Accra Bogotá Cardiff Denver Edinburgh Freiburg Glasgow Havana Izmir Jakarta Kyoto Lausanne
Mombasa Nantes Oxford Palermo Reykjavik Santiago Tunis Uppsala Vancouver Wellington Yokohama"""
THINGS = """lamps chairs tables cups plates books pens bags boxes shirts shoes hats coats keys clocks candles mirrors
bottles bowls knives forks spoons pots pans towels pillows blankets carpets curtains shelves desks sofas
beds tents ropes bells drums flutes stamps cards maps globes kites dolls balls bikes tyres pumps hoses
tubes wires cables plugs lights tea coffee bread cheese apples pears plums cherries lemons eggs onions
potatoes carrots beans nuts olives cakes pies biscuits
| violins lanterns kettles baskets ladders hammers umbrellas scarves bracelets notebooks peaches radishes"""
QUALITIES = """red green blue black white yellow brown grey small large old new round square long short heavy light
cheap fine soft hard warm cold dark bright plain wooden paper glass steel cotton""".split()
JOBS = """baker teacher nurse doctor lawyer farmer painter writer singer dancer driver pilot sailor cook waiter
tailor plumber carpenter gardener florist chemist surveyor translator librarian photographer programmer
judge clerk""".split()
PARTS = """printer screen keyboard mouse server network login password email calendar phone door window lift heater
light website invoice account order backup report page button file folder database router camera""".split()
TROUBLES = (
    "on fire",
    "is slow",
    "broken",
    "does not start",
    "is empty",
    "lost",
    "too loud",
    "is down",
    "keeps failing",
    "is late",
)
WISHES = ("cannot open", "please replace", "need a new", "lost my", "question about")
TITLES = """dentist concert lunch dinner meeting interview lecture exam rehearsal party wedding picnic training
workshop breakfast review haircut holiday football chess choir yoga""".split()
MONTHS = """January February March April May June July August September October November December""".split()
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
LIKES = (
    "music",
    "the sea",
    "old books",
    "long walks",
    "the rain",
    "good bread",
    "chess",
    "a quiet garden",
    "small towns",
    "trains",
    "birds",
    "winter",
    "summer nights",
    "the mountains",
    "black coffee",
    "green tea",
)
ONSETS = """b c d f g h j k l m n p r s t v w z b d g k l m n p r s t v ch sh th br cr dr gr kr pr tr bl cl fl gl sl
st sp sk kh qu""".split()
VOWELS = """a e i o u a e i o u a e i o u a e i o ai au ea ee ei ia ie io oa oo ou y é ö ü á ø""".split()
CODAS = """n r s l t m d k n r s l nd nt rt st rk ll ss ck ng x z f b g p v""".split()
WORLD = (
    "Größe, Straße, Übung, Äpfel und schöne Grüße aus München.",
    "Où est la bibliothèque ? Ça coûte 3,50 € à l'hôtel, déjà payé.",
    "El niño comió piña en España; ¿dónde está mañana?",
    "São Paulo não é só trabalho: coração, informação, opções.",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň. Győr, İstanbul, Çeşme.",
    "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Καλημέρα κόσμε.",
    "שלום עולם. مرحبا بالعالم. नमस्ते दुनिया। สวัสดีชาวโลก",
    "你好,世界。今天天气很好。こんにちは、世界。ありがとう。안녕하세요 세계",
    "😀 😂 ❤️ 👍🏽 🎉 → ← ✓ ✗ … — – “quoted” ‘text’ ½ × ÷ ± ≤ ≥ ≠ ∞ 100 °C £20 ¥300",
)
