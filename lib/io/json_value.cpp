#include "lib/io/json_value.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/base/utf8.h"

namespace moelora {
namespace {

std::string python_repr(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

void add_unit(uint32_t unit, std::string& out) { out += fmt::format("\\u{:04x}", unit); }

// One character, or byte, that is not shown as it is: escaped as JSON does; a byte that belongs to
// no character, for which JSON has nothing, as the text "\xNN". Returns how many bytes it has.
size_t add_escape(std::string_view text, std::string& out) {
  static constexpr std::string_view kPlain = "\"\\\b\f\n\r\t", kShort = "\"\\bfnrt";
  if (const size_t i = kPlain.find(text[0]); i != std::string_view::npos) {
    (out += '\\') += kShort[i];
    return 1;
  }
  const CodePoint c = first_code_point(text);
  if (c.length == 0) {
    out += fmt::format("\\\\x{:02x}", static_cast<unsigned char>(text[0]));
    return 1;
  }
  if (is_seen(c.value)) {
    out += text.substr(0, c.length);
  } else if (c.value < 0x10000) {
    add_unit(c.value, out);
  } else {
    add_unit(0xD800 + ((c.value - 0x10000) >> 10U), out);
    add_unit(0xDC00 + ((c.value - 0x10000) & 0x3FFU), out);
  }
  return c.length;
}

bool is_plain(char c) { return c >= 0x20 && c < 0x7F && c != '"' && c != '\\'; }

void add_string(std::string_view text, std::string& out) {
  out += '"';
  while (!text.empty()) {
    const auto* const end = std::find_if_not(text.begin(), text.end(), is_plain);
    const auto plain = static_cast<size_t>(end - text.begin());
    out += text.substr(0, plain);
    text.remove_prefix(plain);
    if (!text.empty()) text.remove_prefix(add_escape(text, out));
  }
  out += '"';
}

// Writes what json.dumps writes, but for characters that nobody sees, which are escaped; `indent` <
// 0 is its indent=None.
class Dumper {
 public:
  Dumper(int indent, std::string& out) : indent_(indent), out_(out) {}

  void value(const Json& json) {
    switch (json.kind()) {
      case Json::Kind::null:
        out_ += "null";
        return;
      case Json::Kind::boolean:
        out_ += json.as_bool() ? "true" : "false";
        return;
      case Json::Kind::integer:
      case Json::Kind::real:
        out_ += json.number_text();
        return;
      case Json::Kind::string:
        add_string(json.as_string(), out_);
        return;
      case Json::Kind::array:
        return list('[', ']', json.items(), [&](const Json& item) { value(item); });
      case Json::Kind::object:
        return list('{', '}', json.members(), [&](const Json::Members::value_type& member) {
          add_string(member.first, out_);
          out_ += ": ";
          value(member.second);
        });
    }
  }

 private:
  template <class List, class F>
  void list(char open, char close, const List& list, F&& write) {
    out_ += open;
    ++depth_;
    bool first = true;
    for (const auto& entry : list) {
      if (!first) out_ += indent_ < 0 ? ", " : ",";
      first = false;
      new_line();
      write(entry);
    }
    --depth_;
    if (!list.empty()) new_line();
    out_ += close;
  }

  void new_line() {
    if (indent_ < 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(depth_) * static_cast<size_t>(indent_), ' ');
  }

  int indent_, depth_ = 0;
  std::string& out_;
};

// Of another kind of value: nothing.
template <class Part, class Value>
const Part& part_or_none(const Value& value) {
  static const Part kNone;
  const Part* part = std::get_if<Part>(&value);
  return part == nullptr ? kNone : *part;
}

bool same_members(const Json::Members& a, const Json::Members& b) {
  if (a.size() != b.size()) return false;
  const auto left = by_key(a), right = by_key(b);
  return std::equal(left.begin(), left.end(), right.begin(),
                    [](auto* x, auto* y) { return *x == *y; });
}

}  // namespace

Json::Json(const Json&) = default;
Json::Json(Json&&) noexcept = default;
Json& Json::operator=(const Json&) = default;
Json& Json::operator=(Json&&) noexcept = default;
Json::~Json() = default;

std::vector<const Json::Members::value_type*> by_key(const Json::Members& members) {
  std::vector<const Json::Members::value_type*> out;
  out.reserve(members.size());
  for (const auto& member : members) out.push_back(&member);
  std::stable_sort(out.begin(), out.end(), [](auto* a, auto* b) { return a->first < b->first; });
  return out;
}

Json::Json(bool value) : value_(value) {}
Json::Json(int64_t value) : value_(Integer{value, nullptr}) {}
Json::Json(double value) : value_(Real{value, nullptr}) {}
Json::Json(std::string value) : value_(std::move(value)) {}

Json Json::array(std::vector<Json> items) {
  Json out;
  out.value_ = std::move(items);
  return out;
}

Json Json::object(Members members) {
  Json out;
  out.value_ = std::move(members);
  return out;
}

Json Json::strings(const std::vector<std::string>& items) {
  return array({items.begin(), items.end()});
}

std::string_view Json::kind_name() const {
  constexpr std::array<std::string_view, 7> kNames = {
      "null", "a boolean", "an integer", "a number", "a string", "an array", "an object"};
  return kNames[value_.index()];
}

bool Json::as_bool() const {
  const bool* value = std::get_if<bool>(&value_);
  return value != nullptr && *value;
}

int64_t Json::as_int() const {
  const Integer* value = std::get_if<Integer>(&value_);
  return value == nullptr ? 0 : value->value;
}

double Json::as_double() const {
  const Real* value = std::get_if<Real>(&value_);
  return value == nullptr ? static_cast<double>(as_int()) : value->value;
}

std::string Json::number_text() const {
  if (const Integer* integer = std::get_if<Integer>(&value_))
    return integer->written != nullptr ? *integer->written : fmt::format("{}", integer->value);
  const Real* real = std::get_if<Real>(&value_);
  if (real == nullptr) return "";
  return real->written != nullptr ? *real->written : python_repr(real->value);
}

const std::string& Json::as_string() const { return part_or_none<std::string>(value_); }
const std::vector<Json>& Json::items() const { return part_or_none<std::vector<Json>>(value_); }
const Json::Members& Json::members() const { return part_or_none<Members>(value_); }

const Json* Json::find(std::string_view key) const {
  const Members& all = members();
  const auto it =
      std::find_if(all.begin(), all.end(), [&](const auto& member) { return member.first == key; });
  return it == all.end() ? nullptr : &it->second;
}

Json* Json::find(std::string_view key) { return const_cast<Json*>(std::as_const(*this).find(key)); }

void Json::set(std::string_view key, Json value) {
  if (Json* old = find(key))
    *old = std::move(value);
  else
    std::get<Members>(value_).emplace_back(key, std::move(value));
}

void Json::erase(std::string_view key) {
  if (Members* all = std::get_if<Members>(&value_))
    std::erase_if(*all, [&](const auto& member) { return member.first == key; });
}

std::string Json::dump(int indent) const {
  std::string out;
  Dumper(indent, out).value(*this);
  return out;
}

bool operator==(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number())
    return a.is(Json::Kind::integer) && b.is(Json::Kind::integer) ? a.as_int() == b.as_int()
                                                                  : a.as_double() == b.as_double();
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Json::Kind::boolean:
      return a.as_bool() == b.as_bool();
    case Json::Kind::string:
      return a.as_string() == b.as_string();
    case Json::Kind::array:
      return a.items() == b.items();
    case Json::Kind::object:
      return same_members(a.members(), b.members());
    default:
      return true;
  }
}

std::string json_string(std::string_view text) {
  std::string out;
  add_string(text, out);
  return out;
}

}  // namespace moelora
