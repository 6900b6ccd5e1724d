# ready.pl SOCKET PORT SECONDS: waits until a guest accepts on a vsock port behind a hybrid socket. Exit status 0 when it does.
use strict; use warnings; use IO::Socket::UNIX; use Time::HiRes qw(time sleep);
my ($path, $port, $limit) = @ARGV; my $end = time + $limit;
while (time < $end) {
    my $s = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path);
    if ($s) {
        print $s "CONNECT $port\n"; $s->flush;
        my $answer = '';
        eval { local $SIG{ALRM} = sub { die }; Time::HiRes::alarm(0.5); $answer = <$s> // ''; Time::HiRes::alarm(0); };
        Time::HiRes::alarm(0);
        exit 0 if $answer =~ /^OK /;
    }
    sleep 0.01;
}
exit 1;
