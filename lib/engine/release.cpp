#include "lib/engine/release.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>

#include "lib/adapter/tensor_name.h"

namespace moelora {
namespace {

// A version number as what it sorts by (PEP 440): its numbers, then alpha, beta, rc, or the release
// itself; a development build before what it leads to, a post release after.
struct Parts {
  std::array<int64_t, 4> numbers{};
  int64_t stage = kRelease;  // the rc; of alpha and beta below 0
  int64_t post = 0;
  int64_t development = INT64_MAX;  // which build; none
  friend auto operator<=>(const Parts&, const Parts&) = default;

  static constexpr int64_t kRelease = INT64_MAX, kAlpha = -2'000'000, kBeta = -1'000'000;
};

// Takes "WORD" and the number behind it off the end: false where there is no such end, nullopt
// where no number follows. A separator before it counts as nothing.
std::optional<bool> take_suffix(std::string_view& text, std::string_view word, int64_t& number) {
  const size_t at = text.rfind(word);
  if (at == std::string_view::npos) return false;
  const auto value = parse_index(text.substr(at + word.size()));
  if (!value || at == 0) return std::nullopt;
  number = *value;
  text = text.substr(0, at);
  if (text.ends_with('.') || text.ends_with('-') || text.ends_with('_')) text.remove_suffix(1);
  return true;
}

bool take_suffixes(std::string_view& text, Parts& out) {
  int64_t number = 0;
  if (!take_suffix(text, "dev", out.development)) return false;
  if (!take_suffix(text, "post", out.post)) return false;
  const std::pair<std::string_view, int64_t> stages[] = {{"rc", 0},
                                                         {"alpha", Parts::kAlpha},
                                                         {"beta", Parts::kBeta},
                                                         {"a", Parts::kAlpha},
                                                         {"b", Parts::kBeta}};
  for (const auto& [word, first] : stages) {
    const auto taken = take_suffix(text, word, number);
    if (!taken) return false;
    if (!*taken) continue;
    out.stage = first + number;
    return true;
  }
  if (out.development != INT64_MAX) out.stage = INT64_MIN;  // before the first alpha
  return true;
}

std::optional<Parts> parse_parts(std::string_view text) {
  Parts out;
  text = text.substr(0, text.find('+'));  // "+cu129", "+g0123abc": says nothing of the order
  if (!take_suffixes(text, out)) return std::nullopt;
  for (int64_t& number : out.numbers) {
    const size_t dot = text.find('.');
    const auto value = parse_index(text.substr(0, dot));
    if (!value) return std::nullopt;
    number = *value;
    if (dot == std::string_view::npos) return out;
    text = text.substr(dot + 1);
  }
  return std::nullopt;
}

constexpr std::string_view kDay = "dddd-dd-dd", kMonth = "dddd-dd";

bool has_form(std::string_view text, std::string_view form) {
  return text.size() == form.size() &&
         std::equal(text.begin(), text.end(), form.begin(), [](char c, char wanted) {
           return wanted == 'd' ? c >= '0' && c <= '9' : c == wanted;
         });
}

bool looks_like_date(std::string_view text) { return has_form(text, kDay); }

int number_at(std::string_view text, size_t at, size_t digits) {  // with leading zeros
  int out = 0;
  for (const char digit : text.substr(at, digits)) out = 10 * out + (digit - '0');
  return out;
}

// Whether a calendar has the day, or the month, that a text of this form names.
bool is_in_calendar(std::string_view text) {
  using namespace std::chrono;
  const int on = text.size() == kDay.size() ? number_at(text, 8, 2) : 1;
  return year_month_day{year(number_at(text, 0, 4)),
                        month(static_cast<unsigned>(number_at(text, 5, 2))),
                        day(static_cast<unsigned>(on))}
      .ok();
}

// The day that a text stands for: of a month its last, of a branch one after all; "" for none.
std::string day_of(std::string_view text) {
  const bool is_day = has_form(text, kDay);
  if (is_day || has_form(text, kMonth)) {
    if (!is_in_calendar(text)) return "";
    return std::string(text) + (is_day ? "" : "-31");
  }
  for (std::string_view branch : {"main", "master", "nightly", "head", "HEAD"})
    if (text == branch) return "9999-12-31";
  return "";
}

}  // namespace

std::optional<EngineVersion> EngineVersion::parse(std::string_view text) {
  EngineVersion out;
  if (text.size() > 1 && text.front() == 'v' && text[1] >= '0' && text[1] <= '9')
    text.remove_prefix(1);
  out.text_ = text;
  out.day_ = day_of(text);
  if (!out.is_date() && !parse_parts(text)) return std::nullopt;
  return out;
}

bool EngineVersion::is_development() const {
  const auto parts = is_date() ? std::nullopt : parse_parts(text_);
  return parts && parts->development != INT64_MAX;
}

bool EngineVersion::has(const Release& release) const {
  return is_date() ? compare_versions(day_, release.date) >= 0
                   : compare_versions(text_, release.version) >= 0;
}

bool EngineVersion::is_after(std::string_view day) const {
  return text_ > day.substr(0, std::min(day.size(), text_.size()));
}

int compare_versions(std::string_view a, std::string_view b) {
  if (looks_like_date(a) || looks_like_date(b)) return a.compare(b);
  const Parts left = parse_parts(a).value_or(Parts{}), right = parse_parts(b).value_or(Parts{});
  return left < right ? -1 : left > right ? 1 : 0;
}

}  // namespace moelora
