#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/property.hpp>
#include <runnel/mqtt/codec/user_properties.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// A copy of `properties`, which are a view, that owns all strings and lists: for who sends them later.
class owned_properties {
  public:
    /// None.
    owned_properties() noexcept = default;
    /// A copy of all that `of` views; none if it is null. Throws `errc::string_too_long` of a user property with more
    /// than 65,535 bytes.
    RUNNEL_COLD explicit owned_properties(properties const* of) : held_(of == nullptr ? nullptr : keep(*of)) {}
    owned_properties(owned_properties const& other) : owned_properties(other.get()) {}
    owned_properties(owned_properties&&) noexcept = default;
    owned_properties& operator=(owned_properties other) noexcept {
        held_ = std::move(other.held_);
        return *this;
    }
    ~owned_properties() = default;

    /// What it owns, valid as long as this lives, also if it is moved; null: none.
    properties const* get() const noexcept { return held_ ? &held_->view : nullptr; }

    /// The bytes of the strings and lists.
    std::size_t size() const noexcept {
        if (!held_) return 0;
        return held_->text.size() + held_->view.user_properties.encoded().size() +
               held_->identifiers.size() * sizeof(std::uint32_t);
    }

  private:
    struct held {
        properties view{};
        std::string text{};
        user_properties user{};
        std::vector<std::uint32_t> identifiers{};
    };

    // Calls `f` with each string that is there.
    template <class F>
    static void each_text(properties& p, F f) {
        for_each_property([&](auto i) {
            auto& member = p.*std::get<i>(property_table).member;
            if constexpr (std::is_same_v<std::remove_cvref_t<decltype(member)>, std::optional<std::string_view>>)
                if (member) f(*member);
            return true;
        });
    }

    RUNNEL_COLD static std::unique_ptr<held> keep(properties const& of) {
        auto h = std::make_unique<held>();
        auto& p = h->view = of;
        std::size_t size = 0;
        each_text(p, [&](std::string_view text) { size += text.size(); });
        h->text.reserve(size);  // so that it stays where it is
        each_text(p, [&](std::string_view& text) {
            auto const at = h->text.size();
            h->text += text;
            text = std::string_view(h->text).substr(at);
        });
        h->user = user_properties(of.user_properties);
        p.user_properties = h->user.list();
        h->identifiers.assign(of.subscription_identifiers.begin(), of.subscription_identifiers.end());
        p.subscription_identifiers = h->identifiers;
        return h;
    }

    std::unique_ptr<held> held_{};
};

}  // namespace runnel::mqtt
