# The Perl side of scram_test.cpp: an independent implementation of SCRAM (Authen::SCRAM) as client and as server.
#
# usage: scram_peer.pl    listens on any port, which it prints, until it is ended
#
# A connection begins with a line: "client" or "server", the digest, and in base64 the user name and the password as UTF-8;
# for a server also the number of iterations. Then each side sends its messages, a line each in base64, as SCRAM has them. A
# client that is content with the server's signature sends an empty line. What is not accepted is answered with "!".
use strict;
use warnings;
use Authen::SCRAM::Client;
use Authen::SCRAM::Server;
use Encode qw(decode encode);
use IO::Socket::INET;
use MIME::Base64;
use PBKDF2::Tiny qw(derive digest_fcn hmac);

sub receive {
    my ($peer) = @_;
    my $line = <$peer>;
    die "the peer has gone\n" unless defined $line;
    chomp $line;
    return decode('UTF-8', decode_base64($line));
}

sub say_to {
    my ($peer, $text) = @_;
    print {$peer} encode_base64(encode('UTF-8', $text), ''), "\n";
}

sub be_client {
    my ($peer, $digest, $user, $password) = @_;
    my $client = Authen::SCRAM::Client->new(username => $user, password => $password, digest => $digest);
    say_to($peer, $client->first_msg());
    say_to($peer, $client->final_msg(receive($peer)));
    die "not the right server\n" unless $client->validate(receive($peer));
    say_to($peer, '');
}

sub be_server {
    my ($peer, $digest, $user, $password, $iterations) = @_;
    my $salt = join '', map { chr int rand 256 } 1 .. 16;
    my ($function, $block_size) = digest_fcn($digest);
    my $salted = derive($digest, encode('UTF-8', $password), $salt, $iterations);
    my $stored = $function->(hmac('Client Key', $salted, $function, $block_size));
    my $server_key = hmac('Server Key', $salted, $function, $block_size);
    my $server = Authen::SCRAM::Server->new(
        digest        => $digest,
        credential_cb => sub { $_[0] eq $user ? ($salt, $stored, $server_key, $iterations) : () },
    );
    say_to($peer, $server->first_msg(receive($peer)));
    say_to($peer, $server->final_msg(receive($peer)));
}

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Proto => 'tcp', Listen => 10) or die "listen: $!";
$| = 1;
print 'listening on ', $listener->sockport(), "\n";
while (my $peer = $listener->accept()) {
    $peer->autoflush(1);
    my $first = <$peer> // '';
    chomp $first;
    my ($role, $digest, $user, $password, $iterations) = split / /, $first;
    $_ = decode('UTF-8', decode_base64($_)) for $user, $password;
    eval { $role eq 'client' ? be_client($peer, $digest, $user, $password) : be_server($peer, $digest, $user, $password, $iterations) };
    print {$peer} "!\n" if $@;
    print $@ if $@;
    close $peer;
}
