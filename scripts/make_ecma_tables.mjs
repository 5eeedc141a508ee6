// Writes outlines_core/regex/data/ecma.json: the ECMAScript character properties and case folding, as node knows them.
//
//   node scripts/make_ecma_tables.mjs
//
// The engine itself is asked, for every property and every code point, so that our `\p{...}` means what its does. Only
// the names are listed here (of the ECMA-262 tables "Non-binary / Binary Unicode property aliases" and of Unicode's
// PropertyValueAliases.txt): canonical name, then aliases. A name that the engine refuses is left out, with a note.
//
// Sets are written as "gap" or "gap,more" per range, in base 36: characters left out since the last range, then how
// many follow the first one. Script_Extensions is written only where it differs from Script.

import { writeFileSync } from "node:fs";

const GENERAL = `
  Cased_Letter LC, Close_Punctuation Pe, Connector_Punctuation Pc, Control Cc cntrl, Currency_Symbol Sc,
  Dash_Punctuation Pd, Decimal_Number Nd digit, Enclosing_Mark Me, Final_Punctuation Pf, Format Cf,
  Initial_Punctuation Pi, Letter L, Letter_Number Nl, Line_Separator Zl, Lowercase_Letter Ll, Mark M Combining_Mark,
  Math_Symbol Sm, Modifier_Letter Lm, Modifier_Symbol Sk, Nonspacing_Mark Mn, Number N, Open_Punctuation Ps, Other C,
  Other_Letter Lo, Other_Number No, Other_Punctuation Po, Other_Symbol So, Paragraph_Separator Zp, Private_Use Co,
  Punctuation P punct, Separator Z, Space_Separator Zs, Spacing_Mark Mc, Surrogate Cs, Symbol S, Titlecase_Letter Lt,
  Unassigned Cn, Uppercase_Letter Lu`;

const SCRIPTS = `
  Adlam Adlm, Ahom, Anatolian_Hieroglyphs Hluw, Arabic Arab, Armenian Armn, Avestan Avst, Balinese Bali, Bamum Bamu,
  Bassa_Vah Bass, Batak Batk, Bengali Beng, Beria_Erfe Berf, Bhaiksuki Bhks, Bopomofo Bopo, Brahmi Brah,
  Braille Brai, Buginese Bugi, Buhid Buhd, Canadian_Aboriginal Cans, Carian Cari, Caucasian_Albanian Aghb,
  Chakma Cakm, Cham, Cherokee Cher, Chorasmian Chrs, Common Zyyy, Coptic Copt Qaac, Cuneiform Xsux, Cypriot Cprt,
  Cypro_Minoan Cpmn, Cyrillic Cyrl, Deseret Dsrt, Devanagari Deva, Dives_Akuru Diak, Dogra Dogr, Duployan Dupl,
  Egyptian_Hieroglyphs Egyp, Elbasan Elba, Elymaic Elym, Ethiopic Ethi, Garay Gara, Georgian Geor, Glagolitic Glag,
  Gothic Goth, Grantha Gran, Greek Grek, Gujarati Gujr, Gunjala_Gondi Gong, Gurmukhi Guru, Gurung_Khema Gukh,
  Han Hani, Hangul Hang, Hanifi_Rohingya Rohg, Hanunoo Hano, Hatran Hatr, Hebrew Hebr, Hiragana Hira,
  Imperial_Aramaic Armi, Inherited Zinh Qaai, Inscriptional_Pahlavi Phli, Inscriptional_Parthian Prti, Javanese Java,
  Kaithi Kthi, Kannada Knda, Katakana Kana, Katakana_Or_Hiragana Hrkt, Kawi, Kayah_Li Kali, Kharoshthi Khar,
  Khitan_Small_Script Kits, Khmer Khmr, Khojki Khoj, Khudawadi Sind, Kirat_Rai Krai, Lao Laoo, Latin Latn,
  Lepcha Lepc, Limbu Limb, Linear_A Lina, Linear_B Linb, Lisu, Lycian Lyci, Lydian Lydi, Mahajani Mahj, Makasar Maka,
  Malayalam Mlym, Mandaic Mand, Manichaean Mani, Marchen Marc, Masaram_Gondi Gonm, Medefaidrin Medf,
  Meetei_Mayek Mtei, Mende_Kikakui Mend, Meroitic_Cursive Merc, Meroitic_Hieroglyphs Mero, Miao Plrd, Modi,
  Mongolian Mong, Mro Mroo, Multani Mult, Myanmar Mymr, Nabataean Nbat, Nag_Mundari Nagm, Nandinagari Nand,
  New_Tai_Lue Talu, Newa, Nko Nkoo, Nushu Nshu, Nyiakeng_Puachue_Hmong Hmnp, Ogham Ogam, Ol_Chiki Olck, Ol_Onal Onao,
  Old_Hungarian Hung, Old_Italic Ital, Old_North_Arabian Narb, Old_Permic Perm, Old_Persian Xpeo, Old_Sogdian Sogo,
  Old_South_Arabian Sarb, Old_Turkic Orkh, Old_Uyghur Ougr, Oriya Orya, Osage Osge, Osmanya Osma, Pahawh_Hmong Hmng,
  Palmyrene Palm, Pau_Cin_Hau Pauc, Phags_Pa Phag, Phoenician Phnx, Psalter_Pahlavi Phlp, Rejang Rjng, Runic Runr,
  Samaritan Samr, Saurashtra Saur, Sharada Shrd, Shavian Shaw, Siddham Sidd, Sidetic Sidt, SignWriting Sgnw,
  Sinhala Sinh, Sogdian Sogd, Sora_Sompeng Sora, Soyombo Soyo, Sundanese Sund, Sunuwar Sunu, Syloti_Nagri Sylo,
  Syriac Syrc, Tagalog Tglg, Tagbanwa Tagb, Tai_Le Tale, Tai_Tham Lana, Tai_Viet Tavt, Tai_Yo Tayo, Takri Takr,
  Tamil Taml, Tangsa Tnsa, Tangut Tang, Telugu Telu, Thaana Thaa, Thai, Tibetan Tibt, Tifinagh Tfng, Tirhuta Tirh,
  Todhri Todr, Tolong_Siki Tols, Toto, Tulu_Tigalari Tutg, Ugaritic Ugar, Unknown Zzzz, Vai Vaii, Vithkuqi Vith,
  Wancho Wcho, Warang_Citi Wara, Yezidi Yezi, Yi Yiii, Zanabazar_Square Zanb`;

const BINARY = `
  ASCII, ASCII_Hex_Digit AHex, Alphabetic Alpha, Any, Assigned, Bidi_Control Bidi_C, Bidi_Mirrored Bidi_M,
  Case_Ignorable CI, Cased, Changes_When_Casefolded CWCF, Changes_When_Casemapped CWCM, Changes_When_Lowercased CWL,
  Changes_When_NFKC_Casefolded CWKCF, Changes_When_Titlecased CWT, Changes_When_Uppercased CWU, Dash,
  Default_Ignorable_Code_Point DI, Deprecated Dep, Diacritic Dia, Emoji, Emoji_Component EComp, Emoji_Modifier EMod,
  Emoji_Modifier_Base EBase, Emoji_Presentation EPres, Extended_Pictographic ExtPict, Extender Ext,
  Grapheme_Base Gr_Base, Grapheme_Extend Gr_Ext, Hex_Digit Hex, IDS_Binary_Operator IDSB, IDS_Trinary_Operator IDST,
  ID_Continue IDC, ID_Start IDS, Ideographic Ideo, Join_Control Join_C, Logical_Order_Exception LOE, Lowercase Lower,
  Math, Noncharacter_Code_Point NChar, Pattern_Syntax Pat_Syn, Pattern_White_Space Pat_WS, Quotation_Mark QMark,
  Radical, Regional_Indicator RI, Sentence_Terminal STerm, Soft_Dotted SD, Terminal_Punctuation Term,
  Unified_Ideograph UIdeo, Uppercase Upper, Variation_Selector VS, White_Space WSpace space, XID_Continue XIDC,
  XID_Start XIDS`;

const names = (text) => text.split(",").map((entry) => entry.trim().split(/\s+/));

// No string may hold all code points in a row: U+DBFF and U+DC00 would be read as one character.
const low = Array.from({ length: 0xd800 }, (_, code) => String.fromCharCode(code)).join("");
const high = Array.from({ length: 0x2000 }, (_, i) => String.fromCharCode(0xe000 + i)).join("");
const astral = Array.from({ length: 0x100000 }, (_, i) => String.fromCodePoint(0x10000 + i)).join("");

/** The ranges of code points that match `source` (the text of a class escape, u flag). */
function ranges(source, flags = "u") {
  const found = [];
  const one = new RegExp(`^${source}$`, flags);
  const many = new RegExp(`${source}+`, flags + "g");
  const add = (first, last) => {
    const previous = found.at(-1);
    if (previous && previous[1] === first - 1) previous[1] = last;
    else found.push([first, last]);
  };
  for (const match of low.matchAll(many)) add(match.index, match.index + match[0].length - 1);
  for (let code = 0xd800; code < 0xe000; code++) if (one.test(String.fromCharCode(code))) add(code, code);
  for (const match of high.matchAll(many)) add(0xe000 + match.index, 0xe000 + match.index + match[0].length - 1);
  for (const match of astral.matchAll(many)) {
    add(0x10000 + match.index / 2, 0x10000 + (match.index + match[0].length) / 2 - 1);
  }
  return found;
}

function packed(found) {
  let next = 0;
  return found
    .map(([first, last]) => {
      const gap = (first - next).toString(36);
      next = last + 1;
      return last === first ? gap : `${gap},${(last - first).toString(36)}`;
    })
    .join(" ");
}

function table(text, prefix) {
  const sets = {};
  const aliases = {};
  for (const [canonical, ...others] of names(text)) {
    try {
      sets[canonical] = packed(ranges(`\\p{${prefix}${canonical}}`));
    } catch (error) {
      console.error(`left out: ${canonical} (${error.message})`);
      continue;
    }
    for (const alias of others) {
      try {
        new RegExp(`\\p{${prefix}${alias}}`, "u");
        aliases[alias] = canonical;
      } catch (error) {
        console.error(`left out: ${alias} (${error.message})`);
      }
    }
  }
  return { sets, aliases };
}

/** Classes of characters that the u and i flags make equal, smallest first in each. */
function foldClasses() {
  const cased = ranges("[\\p{Changes_When_Casefolded}\\p{Changes_When_Casemapped}]").flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, i) => String.fromCodePoint(first + i)),
  );
  const text = cased.join("");
  const classes = new Set();
  for (const char of cased) {
    const same = text.match(new RegExp(char, "giu")).map((other) => other.codePointAt(0));
    if (same.length > 1) classes.add(same.sort((a, b) => a - b).map((code) => code.toString(36)).join(","));
  }
  return [...classes].join(" ");
}

const general = table(GENERAL, "General_Category=");
const scripts = table(SCRIPTS, "Script=");
const extensions = table(SCRIPTS, "Script_Extensions=");
const binary = table(BINARY, "");
for (const [name, set] of Object.entries(scripts.sets)) {
  if (extensions.sets[name] === set) delete extensions.sets[name];
}
const tables = {
  source: `node ${process.versions.node}, V8 ${process.versions.v8}, Unicode ${process.versions.unicode}`,
  general,
  scripts,
  extensions: { sets: extensions.sets, aliases: {} },
  binary,
  folds: foldClasses(),
};
// unions of others: two-letter categories are enough
for (const [group, first] of Object.entries({
  Other: "C", Letter: "L", Mark: "M", Number: "N", Punctuation: "P", Symbol: "S", Separator: "Z",
})) {
  const members = names(GENERAL).filter(([, alias]) => alias?.length === 2 && alias[0] === first && alias !== "LC");
  tables.general.sets[group] = members.map(([canonical]) => canonical);
}
tables.general.sets.Cased_Letter = ["Lowercase_Letter", "Titlecase_Letter", "Uppercase_Letter"];
const target = new URL("../outlines_core/regex/data/ecma.json", import.meta.url);
writeFileSync(target, JSON.stringify(tables, null, 0).replaceAll('","', '",\n"') + "\n");
