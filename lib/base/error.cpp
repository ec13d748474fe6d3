#include "lib/base/error.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

namespace moelora {
namespace {

// In the order of Option.
constexpr std::array<std::string_view, 30> kNames = {
    "alpha",   "b-order", "base",          "device",    "drop",           "dtype",
    "engine",  "explain", "follow-links",  "force",     "format",         "from",
    "ignore",  "layers",  "max",           "max-rank",  "max-shard-size", "model-spec",
    "names",   "numeric", "out-b-order",   "out-roles", "part",           "preset",
    "project", "roles",   "server-option", "source",    "targets",        "to"};
static_assert(kNames.size() == static_cast<size_t>(Option::to) + 1);

std::string join(const std::string& place, const std::string& what) {
  return place.empty() ? what : place + ": " + what;
}

}  // namespace

Hint::Hint(const char* text) : Hint(std::string(text)) {}
Hint::Hint(std::initializer_list<Part> parts) : parts_(parts) {}
Hint::Hint(const Hint&) = default;
Hint::Hint(Hint&&) noexcept = default;
Hint& Hint::operator=(const Hint&) = default;
Hint& Hint::operator=(Hint&&) noexcept = default;
Hint::~Hint() = default;

Error::Error(const Error&) = default;
Error::Error(Error&&) noexcept = default;
Error& Error::operator=(const Error&) = default;
Error& Error::operator=(Error&&) noexcept = default;
Error::~Error() = default;

std::string_view option_name(Option option) { return kNames[static_cast<size_t>(option)]; }

std::string default_flag(Option option) { return fmt::format("--{}", option_name(option)); }

std::string Location::text(const Spelling& spell) const {
  std::string out = option ? spell(*option) : file;
  if (line > 0) out += fmt::format(":{}", line);
  if (column > 0) out += fmt::format(":{}", column);
  if (item.empty() || out.empty()) return out + item;
  return out + (option ? " " : ": ") + item;
}

Location in_file(std::string file, std::string item) {
  return {std::move(file), 0, 0, std::move(item), {}};
}

Location at_option(Option option, std::string value) {
  return {{}, 0, 0, std::move(value), option};
}

Hint::Hint(std::string text) {
  if (!text.empty()) parts_.emplace_back(std::move(text));
}

Hint operator+(Hint first, Hint second) {
  std::move(second.parts_.begin(), second.parts_.end(), std::back_inserter(first.parts_));
  return first;
}

std::string Hint::text(const Spelling& spell) const {
  std::string out;
  for (const Part& part : parts_) {
    const std::string words = part.option ? spell(*part.option) : part.text;
    if (part.option && words.empty()) return "";
    out += words;
  }
  return out;
}

Error::Error(Location location, std::string what, Hint hint)
    : std::runtime_error(join(location.text(), what)),
      location_(std::move(location)),
      text_(std::move(what)),
      advice_(std::move(hint)) {}

Error::Error(std::string where, std::string what, Hint hint)
    : Error(Location{{}, 0, 0, std::move(where), {}}, std::move(what), std::move(hint)) {}

Error::Error(const char* where, std::string what, Hint hint)
    : Error(std::string(where), std::move(what), std::move(hint)) {}

Error::Error(Option option, std::string what, Hint hint)
    : Error(at_option(option), std::move(what), std::move(hint)) {}

std::string Error::message(const Spelling& spell) const {
  return join(location_.text(spell), text_);
}

}  // namespace moelora
